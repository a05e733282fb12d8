//! Certificates as bytes: made, and read back. It knows the time only as an argument and touches
//! nothing outside.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use migrations_core::certificates::{AUTHORITY_LIFE, LEAF_LIFE, Leaf, Validity};
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
pub(super) fn make_authority(now: Timestamp) -> Result<Pair, rcgen::Error> {
    let mut params = params(Vec::new(), "migrations-operator", Validity::starting(now, AUTHORITY_LIFE))?;
    // It signs serving certificates and nothing that signs.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// Makes a serving certificate for `names`.
pub(super) fn issue_leaf(authority: &Pair, names: &[String], now: Timestamp) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let mut params = params(names.to_vec(), "migrations-webhook", Validity::starting(now, LEAF_LIFE))?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

/// When an authority is valid, if it is one.
pub(super) fn read_authority(pair: &Pair) -> Result<Validity, Unusable> {
    with_certificate(pair, |certificate| {
        if certificate.is_ca() { validity(certificate) } else { Err(Unusable::NotAnAuthority) }
    })
}

/// What matters of a serving certificate.
pub(super) fn read_leaf(pair: &Pair, authority: Option<&Pair>) -> Result<Leaf, Unusable> {
    with_certificate(pair, |leaf| {
        let names = match leaf.subject_alternative_name() {
            Ok(Some(extension)) => extension.value.general_names.iter().filter_map(dns_name).collect(),
            _ => Vec::new(),
        };
        let by_authority = authority.is_some_and(|authority| {
            let signed = with_certificate(authority, |authority| {
                Ok(leaf.issuer() == authority.subject()
                    && leaf.verify_signature(Some(authority.public_key())).is_ok())
            });
            signed.unwrap_or(false)
        });
        Ok(Leaf { validity: validity(leaf)?, names, by_authority })
    })
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
fn with_certificate<T>(
    pair: &Pair,
    read: impl FnOnce(&X509Certificate<'_>) -> Result<T, Unusable>,
) -> Result<T, Unusable> {
    let (_, pem) = parse_x509_pem(pair.certificate.as_bytes()).map_err(|_| Unusable::Pem)?;
    let (_, certificate) = parse_x509_certificate(&pem.contents).map_err(|_| Unusable::Certificate)?;
    let key = KeyPair::from_pem(&pair.key).map_err(Unusable::Key)?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(Unusable::Mismatch);
    }
    read(&certificate)
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

    fn chain() -> (Pair, Pair) {
        let authority = make_authority(now()).unwrap();
        let leaf = issue_leaf(&authority, &service_names("ops"), now()).unwrap();
        (authority, leaf)
    }

    /// What a client that trusts `authority` says of `leaf`.
    fn verify(authority: &Pair, leaf: &Pair, name: &'static str, at: Timestamp) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
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
        let later = now() + LEAF_LIFE + SignedDuration::from_hours(1);
        let expired = verify(&authority, &leaf, name, later).unwrap_err();
        assert!(matches!(
            expired,
            rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
        ));
        verify(&make_authority(now()).unwrap(), &leaf, name, now()).unwrap_err();
    }

    #[test]
    fn what_is_made_is_read_back() {
        let (authority, leaf) = chain();
        assert_eq!(read_authority(&authority).unwrap(), Validity::starting(now(), AUTHORITY_LIFE));
        let expected = Leaf {
            validity: Validity::starting(now(), LEAF_LIFE),
            names: service_names("ops"),
            by_authority: true,
        };
        assert_eq!(read_leaf(&leaf, Some(&authority)).unwrap(), expected);
    }

    #[test]
    fn a_leaf_of_another_authority_of_the_same_name_is_told_apart() {
        let (_, leaf) = chain();
        let another = make_authority(now()).unwrap();
        assert!(!read_leaf(&leaf, Some(&another)).unwrap().by_authority);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_reason() {
        let (authority, leaf) = chain();
        let torn = Pair { certificate: "not PEM".into(), ..authority.clone() };
        assert!(matches!(read_authority(&torn), Err(Unusable::Pem)));
        let foreign_key = Pair { key: leaf.key.clone(), ..authority.clone() };
        assert!(matches!(read_authority(&foreign_key), Err(Unusable::Mismatch)));
        let no_key = Pair { key: String::new(), ..authority };
        assert!(matches!(read_authority(&no_key), Err(Unusable::Key(_))));
        assert!(matches!(read_authority(&leaf), Err(Unusable::NotAnAuthority)));
    }
}
