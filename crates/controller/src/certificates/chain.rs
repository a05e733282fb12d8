//! Certificates as bytes: made, and read back. It knows the time only as an argument and touches
//! nothing outside.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use migrations_core::certificates::{Leaf, Lifetimes, Signer, Validity};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::pem::parse_x509_pem;

/// A certificate and its private key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A certificate authority.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) pair: Pair,
    pub(super) validity: Validity,
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("the certificate is not PEM")]
    Pem,
    #[error("the certificate cannot be read")]
    Certificate,
    #[error("its validity is out of range")]
    Validity,
    #[error("the private key cannot be read")]
    Key(#[source] rcgen::Error),
    #[error("the private key is another certificate's")]
    Mismatch,
    #[error("the certificate is not an authority's")]
    NotAnAuthority,
}

/// Makes a certificate authority.
pub(super) fn make_authority(now: Timestamp, lifetimes: &Lifetimes) -> Result<Authority, rcgen::Error> {
    let validity = Validity::of_authority(now, lifetimes);
    let mut params = params(Vec::new(), "migrations-operator", validity)?;
    // It signs serving certificates and nothing that signs.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = normal(&params.self_signed(&key)?.pem());
    Ok(Authority { pair: Pair { certificate, key: key.serialize_pem() }, validity })
}

/// Makes a serving certificate for `names`.
pub(super) fn issue_leaf(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
    lifetimes: &Lifetimes,
) -> Result<Pair, rcgen::Error> {
    let Pair { certificate, key } = &authority.pair;
    let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
    let validity = Validity::of_leaf(now, authority.validity, lifetimes);
    let mut params = params(names.to_vec(), "migrations-webhook", validity)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

/// The pair as an authority, if it is one.
pub(super) fn read_authority(pair: Pair) -> Result<Authority, Unusable> {
    let validity = with_pair(&pair, |certificate| {
        if certificate.is_ca() { validity(certificate) } else { Err(Unusable::NotAnAuthority) }
    })?;
    Ok(Authority { pair: Pair { certificate: normal(&pair.certificate), ..pair }, validity })
}

/// Whether it is an authority's certificate that holds now.
pub(super) fn is_authority(certificate: &str, now: Timestamp) -> bool {
    let holds = with_certificate(certificate, |certificate| {
        Ok(certificate.is_ca() && now < validity(certificate)?.to)
    });
    holds.unwrap_or(false)
}

/// What matters of a serving certificate; `trusted` are the certificates that clients trust.
pub(super) fn read_leaf(
    pair: &Pair,
    current: Option<&Authority>,
    trusted: &[String],
) -> Result<Leaf, Unusable> {
    with_pair(pair, |leaf| {
        let names = match leaf.subject_alternative_name() {
            Ok(Some(extension)) => extension.value.general_names.iter().filter_map(dns_name).collect(),
            _ => Vec::new(),
        };
        let signer = if current.is_some_and(|current| has_signed(&current.pair.certificate, leaf)) {
            Signer::Current
        } else if trusted.iter().any(|authority| has_signed(authority, leaf)) {
            Signer::Trusted
        } else {
            Signer::Unknown
        };
        Ok(Leaf { validity: validity(leaf)?, names, signer })
    })
}

/// The certificates of a text, each as text of its own. Whether they can be read is for others to
/// find out.
pub(super) fn certificates(text: &str) -> Vec<String> {
    let blocks = text.split(BEGIN).skip(1).filter_map(|block| block.split_once(END));
    blocks.map(|(block, _)| format!("{BEGIN}\n{}\n{END}\n", lines(block).join("\n"))).collect()
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

fn lines(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// As [`certificates`] writes it, so that one certificate is one text.
fn normal(certificate: &str) -> String {
    certificates(certificate).into_iter().next().unwrap_or_default()
}

fn params(
    names: Vec<String>,
    common_name: &str,
    Validity { from, to }: Validity,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = date_time_ymd(1970, 1, 1);
    let since_epoch = |time: Timestamp| {
        let past: SignedDuration = Timestamp::UNIX_EPOCH.duration_until(time);
        Duration::try_from(past).unwrap_or_default()
    };
    params.not_before = epoch + since_epoch(from);
    params.not_after = epoch + since_epoch(to);
    Ok(params)
}

/// Calls `read` with the parsed certificate of `pair`, once it is sure that its key goes with it.
fn with_pair<T>(
    pair: &Pair,
    read: impl FnOnce(&X509Certificate<'_>) -> Result<T, Unusable>,
) -> Result<T, Unusable> {
    with_certificate(&pair.certificate, |certificate| {
        let key = KeyPair::from_pem(&pair.key).map_err(Unusable::Key)?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(Unusable::Mismatch);
        }
        read(certificate)
    })
}

fn with_certificate<T>(
    certificate: &str,
    read: impl FnOnce(&X509Certificate<'_>) -> Result<T, Unusable>,
) -> Result<T, Unusable> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|_| Unusable::Pem)?;
    let (_, certificate) = parse_x509_certificate(&pem.contents).map_err(|_| Unusable::Certificate)?;
    read(&certificate)
}

fn has_signed(authority: &str, leaf: &X509Certificate<'_>) -> bool {
    let signed = with_certificate(authority, |authority| {
        let names_agree = leaf.issuer() == authority.subject();
        Ok(names_agree && leaf.verify_signature(Some(authority.public_key())).is_ok())
    });
    signed.unwrap_or(false)
}

fn validity(certificate: &X509Certificate<'_>) -> Result<Validity, Unusable> {
    let at = |seconds| Timestamp::from_second(seconds).map_err(|_| Unusable::Validity);
    let validity = certificate.validity();
    Ok(Validity { from: at(validity.not_before.timestamp())?, to: at(validity.not_after.timestamp())? })
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use migrations_core::certificates::service_names;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{CertificateError, RootCertStore};

    use super::*;

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn authority() -> Authority {
        make_authority(now(), &Lifetimes::default()).unwrap()
    }

    fn chain() -> (Authority, Pair) {
        let authority = authority();
        let leaf = issue_leaf(&authority, &service_names("ops"), now(), &Lifetimes::default()).unwrap();
        (authority, leaf)
    }

    /// What a client that trusts `authority` says of `leaf`.
    fn verify(
        authority: &Authority,
        leaf: &Pair,
        name: &'static str,
        at: Timestamp,
    ) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pair.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let leaf = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().try_into().unwrap()));
        verifier.verify_server_cert(&leaf, &[], &ServerName::try_from(name).unwrap(), &[], at).map(drop)
    }

    #[test]
    fn a_client_that_trusts_the_authority_accepts_the_leaf_for_the_service() {
        let (authority, leaf) = chain();
        verify(&authority, &leaf, "migrations-webhook.ops.svc", now()).unwrap();
        verify(&authority, &leaf, "migrations-webhook.ops.svc.cluster.local", now()).unwrap();
        verify(&authority, &leaf, "migrations-webhook.ops.svc", now() - SignedDuration::from_mins(59))
            .unwrap();
    }

    #[test]
    fn it_is_refused_for_other_names_after_its_life_and_under_another_authority() {
        let (authority, leaf) = chain();
        let name = "migrations-webhook.ops.svc";
        verify(&authority, &leaf, "migrations-webhook.other.svc", now()).unwrap_err();
        let later = now() + Lifetimes::default().leaf + SignedDuration::from_hours(1);
        let expired = verify(&authority, &leaf, name, later).unwrap_err();
        assert!(matches!(
            expired,
            rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
        ));
        verify(&self::authority(), &leaf, name, now()).unwrap_err();
    }

    #[test]
    fn what_is_made_is_read_back() {
        let (authority, leaf) = chain();
        assert!(read_authority(authority.pair.clone()).unwrap() == authority);
        let lifetimes = Lifetimes::default();
        assert_eq!(authority.validity, Validity::of_authority(now(), &lifetimes));
        let expected = Leaf {
            validity: Validity::of_leaf(now(), authority.validity, &lifetimes),
            names: service_names("ops"),
            signer: Signer::Current,
        };
        assert_eq!(read_leaf(&leaf, Some(&authority), &[]).unwrap(), expected);
    }

    #[test]
    fn who_signed_a_leaf_is_told_apart_whatever_the_names() {
        let (authority, leaf) = chain();
        let another = self::authority();
        let both = [&another, &authority].map(|authority| authority.pair.certificate.clone());
        let signer = |current, trusted: &[String]| read_leaf(&leaf, current, trusted).unwrap().signer;
        assert_eq!(signer(Some(&another), &[]), Signer::Unknown);
        assert_eq!(signer(Some(&another), &both), Signer::Trusted);
    }

    #[test]
    fn certificates_are_the_same_however_they_are_laid_out() {
        let one = authority().pair.certificate;
        let other = authority().pair.certificate;
        assert_eq!(certificates(&format!("{one}{other}")), [one.clone(), other.clone()]);
        let laid_out = format!("a comment\r\n{}\r\n\r\n  {other}", one.replace('\n', "\r\n"));
        assert_eq!(certificates(&laid_out), [one, other]);
        assert_eq!(certificates("garbage -----BEGIN CERTIFICATE----- without an end"), [""; 0]);
    }

    #[test]
    fn only_an_authority_that_still_holds_is_one() {
        let (authority, leaf) = chain();
        assert!(is_authority(&authority.pair.certificate, now()));
        assert!(!is_authority(&authority.pair.certificate, authority.validity.to));
        assert!(!is_authority(&leaf.certificate, now()));
        assert!(!is_authority(&normal("garbage"), now()));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_reason() {
        let (Authority { pair, .. }, leaf) = chain();
        let unusable = |pair| read_authority(pair).err().unwrap();
        let torn = Pair { certificate: "not PEM".into(), ..pair.clone() };
        assert!(matches!(unusable(torn), Unusable::Pem));
        let foreign_key = Pair { key: leaf.key.clone(), ..pair.clone() };
        assert!(matches!(unusable(foreign_key), Unusable::Mismatch));
        let no_key = Pair { key: String::new(), ..pair };
        assert!(matches!(unusable(no_key), Unusable::Key(_)));
        assert!(matches!(unusable(leaf), Unusable::NotAnAuthority));
    }
}
