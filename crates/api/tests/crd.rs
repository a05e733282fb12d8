//! The shipped CRD is the one that the types describe.

use std::path::Path;

use kube::CustomResourceExt;
use migrations_api::Migrator;

const HEADER: &str =
    "# Made from the types of crates/api; `UPDATE=1 cargo test -p migrations-api --test crd` writes it.\n";

#[test]
fn the_shipped_crd_is_the_one_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crd.yaml");
    let expected = format!("{HEADER}{}", serde_yaml_ng::to_string(&Migrator::crd()).unwrap());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == expected,
        "manifests/crd.yaml is not what the types describe; \
         run `UPDATE=1 cargo test -p migrations-api --test crd` and commit the change"
    );
}
