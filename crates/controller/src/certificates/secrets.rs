//! How certificates are kept in the operator's two Secrets.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use migrations_api::names::{CA_BUNDLE_KEY, CA_SECRET, FIELD_MANAGER, SERVING_SECRET};
use migrations_core::certificates::Leaf;
use migrations_process::telemetry::causes;

use super::Error;
use super::chain::{Authority, Pair, Unusable, certificates, read_authority, read_leaf};

/// The authority that signs. Its names are not those of a TLS Secret, so that nobody serves with it.
const CURRENT: [&str; 2] = [CA_BUNDLE_KEY, "ca.key"];

/// The authority that is trusted and doesn't sign yet.
const NEXT: [&str; 2] = ["next.crt", "next.key"];

/// Those that are trusted and don't sign any more. Their keys are gone.
const OLD: &str = "old.crt";

/// The serving certificate.
const LEAF: [&str; 2] = ["tls.crt", "tls.key"];

/// The authorities of the bundle.
#[derive(Default)]
pub(super) struct Authorities {
    pub(super) current: Option<Authority>,
    pub(super) next: Option<Authority>,
    pub(super) old: Vec<String>,
}

impl Authorities {
    /// The certificates to trust, the oldest first: in an order that stays while they change roles.
    pub(super) fn bundle(&self) -> Vec<String> {
        let Self { current, next, old } = self;
        let pairs = current.iter().chain(next).map(|authority| &authority.pair.certificate);
        let mut bundle = Vec::new();
        for certificate in old.iter().chain(pairs) {
            if !bundle.contains(certificate) {
                bundle.push(certificate.clone());
            }
        }
        bundle
    }

    /// Keeps whom clients were told to trust. An authority that isn't among them has to arrive first.
    pub(super) fn recover(&mut self, told: Vec<String>) {
        self.next = self.current.take().or(self.next.take());
        for certificate in told {
            let next = self.next.as_ref().is_some_and(|next| next.pair.certificate == certificate);
            if !next && !self.old.contains(&certificate) {
                self.old.push(certificate);
            }
        }
    }

    pub(super) fn promote(&mut self) {
        self.old.extend(self.current.take().map(|before| before.pair.certificate));
        self.current = self.next.take();
    }
}

/// What was found, with the Secrets to write over.
pub(super) struct Read {
    pub(super) authorities: Authorities,
    pub(super) leaf: Option<Leaf>,
    pub(super) authority_secret: Option<Secret>,
    pub(super) leaf_secret: Option<Secret>,
}

/// Reads both Secrets. A certificate that can't be used counts as missing, and is told. `told` is
/// whom clients trust beside those of the bundle.
pub(super) async fn read(secrets: &Api<Secret>, told: &[String]) -> Result<Read, Error> {
    let get = async |name| secrets.get_opt(name).await.map_err(|error| Error::Read(name, error));
    // In this order: a leaf is only ever written over one that was read before its authority, so
    // never by an authority that was replaced before the leaf it overwrites.
    let leaf_secret = get(SERVING_SECRET).await?;
    let authority_secret = get(CA_SECRET).await?;
    let old = text(authority_secret.as_ref(), OLD).map(|text| certificates(&text)).unwrap_or_default();
    let authorities = Authorities {
        current: usable(authority_secret.as_ref(), CA_SECRET, CURRENT, read_authority),
        next: usable(authority_secret.as_ref(), CA_SECRET, NEXT, read_authority),
        old,
    };
    let trusted = [authorities.bundle(), told.to_vec()].concat();
    let leaf = usable(leaf_secret.as_ref(), SERVING_SECRET, LEAF, |pair| {
        read_leaf(&pair, authorities.current.as_ref(), &trusted)
    });
    Ok(Read { authorities, leaf, authority_secret, leaf_secret })
}

/// Writes the authorities over the Secret that was read; whether it was still that.
pub(super) async fn write_authorities(
    secrets: &Api<Secret>,
    read: Option<Secret>,
    authorities: &Authorities,
) -> Result<bool, Error> {
    let Authorities { current, next, old } = authorities;
    let mut data = BTreeMap::new();
    for (names, authority) in [(CURRENT, current), (NEXT, next)] {
        data.extend(authority.iter().flat_map(|authority| named(names, &authority.pair)));
    }
    if !old.is_empty() {
        data.insert(OLD.to_owned(), ByteString(old.concat().into_bytes()));
    }
    write(secrets, (CA_SECRET, "Opaque"), read, data).await
}

/// Writes the serving certificate over the Secret that was read; whether it was still that.
pub(super) async fn write_leaf(
    secrets: &Api<Secret>,
    read: Option<Secret>,
    leaf: &Pair,
) -> Result<bool, Error> {
    write(secrets, (SERVING_SECRET, "kubernetes.io/tls"), read, named(LEAF, leaf).into()).await
}

fn named([certificate, key]: [&str; 2], pair: &Pair) -> [(String, ByteString); 2] {
    let bytes = |text: &String| ByteString(text.clone().into_bytes());
    [(certificate.to_owned(), bytes(&pair.certificate)), (key.to_owned(), bytes(&pair.key))]
}

/// Bytes that aren't UTF-8 fail where they are parsed.
fn text(secret: Option<&Secret>, key: &str) -> Option<String> {
    let bytes = secret?.data.as_ref()?.get(key)?;
    Some(String::from_utf8_lossy(&bytes.0).into_owned())
}

fn usable<T>(
    secret: Option<&Secret>,
    name: &str,
    [certificate, key]: [&str; 2],
    read: impl FnOnce(Pair) -> Result<T, Unusable>,
) -> Option<T> {
    let (certificate, key) = match (text(secret, certificate), text(secret, key)) {
        (None, None) => return None,
        (certificate, key) => (certificate.unwrap_or_default(), key.unwrap_or_default()),
    };
    let error = match read(Pair { certificate, key }) {
        Ok(found) => return Some(found),
        Err(error) => error,
    };
    tracing::warn!(secret = name, error = causes(&error), "a certificate of the Secret cannot be used");
    None
}

/// With the resourceVersion that was read; a Secret that was missing is made.
async fn write(
    secrets: &Api<Secret>,
    (name, kind): (&'static str, &str),
    read: Option<Secret>,
    data: BTreeMap<String, ByteString>,
) -> Result<bool, Error> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let written = if let Some(secret) = read {
        secrets.replace(name, &params, &Secret { data: Some(data), ..secret }).await
    } else {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let secret = Secret { metadata, data: Some(data), type_: Some(kind.to_owned()), ..Secret::default() };
        secrets.create(&params, &secret).await
    };
    match written {
        Ok(_) => {
            tracing::info!(secret = name, "Secret written");
            Ok(true)
        }
        // 404: the Secret was deleted since it was read.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(Error::Write(name, error)),
    }
}
