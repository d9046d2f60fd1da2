//! Control documents.

use lens_flags::{Document, SignedDocument, SigningKey};
use lens_model::TrustDomain;

/// A document: what is taken has one spelling, and no signature but its own opens it.
pub(crate) fn document(bytes: &[u8]) {
    let Ok(document) = Document::decode(bytes) else { return };
    let mut again = Vec::new();
    document.encode(&mut again);
    assert_eq!(again, bytes, "two spellings");
    let key = SigningKey::from_bytes(&[7; 32]);
    let Ok(domain) = TrustDomain::new("lens.test") else { return };
    let mut signed = SignedDocument::sign(&document, &key);
    let opened = signed.open(&key.verifying_key(), &domain);
    assert_eq!(opened.is_ok(), document.scope.covers(&domain));
    signed.signature[0] ^= 1;
    assert!(signed.open(&key.verifying_key(), &domain).is_err());
}
