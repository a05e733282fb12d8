//! Tokens that the API server never gave out.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

/// The token with other claims, signed as the API server does.
pub(crate) fn resigned(token: &str, key: &Path, change: impl Fn(&mut Value)) -> String {
    let mut parts = token.split('.');
    let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
    let message = format!("{header}.{}", changed(claims, change));
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&key).unwrap();
    let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
    let signature = fixed(&signer.sign(message.as_bytes()).unwrap());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Claims of a token, changed.
pub(crate) fn changed(claims: &str, change: impl Fn(&mut Value)) -> String {
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    change(&mut claims);
    URL_SAFE_NO_PAD.encode(claims.to_string())
}

/// The two numbers of a signature in DER, 32 bytes each, as tokens have them.
fn fixed(der: &[u8]) -> Vec<u8> {
    let (mut rest, mut fixed) = (&der[2..], Vec::new());
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let number = &number[number.len().saturating_sub(32)..];
        fixed.extend(std::iter::repeat_n(0, 32 - number.len()));
        fixed.extend(number);
        rest = after;
    }
    fixed
}
