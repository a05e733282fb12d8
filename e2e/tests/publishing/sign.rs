//! `sign`: what is asked of cosign and syft. That GitHub vouches for the answers is seen there alone.

use crate::registry::Registry;
use crate::script::{run, script, stand_ins};

/// What a list of an image's contents holds here: what was asked for.
const LISTED: &str = r#"for last; do :; done; echo "$2 $4" > "${last#spdx-json=}""#;
/// Says what it is asked, and what is in the list that it attaches.
const SIGNED: &str = r#"case "$1" in
sign) echo "$*" ;;
attest) echo "attest $7: $(cat "$6") ($2 $3 $4)" ;;
esac"#;

#[test]
fn everything_is_signed_and_says_what_it_is_made_of() {
    let registry = Registry::start();
    let indexes = registry.push("sha-1", "one");
    let mut sign = script("sign");
    let _programs = stand_ins(&mut sign, &[("cosign", SIGNED), ("syft", LISTED)]);
    let asked = run(sign.args(&indexes)).lines();

    let mut expected = Vec::new();
    for index in indexes {
        expected.push(format!("sign --yes --recursive {index}"));
        let (image, _) = index.split_once('@').unwrap();
        for architecture in ["amd64", "arm64"] {
            let digest = Registry::crane(&["digest", &format!("{image}:sha-1-{architecture}")]);
            for subject in [&format!("{image}@{}", digest[0]), &index] {
                expected.push(format!(
                    "attest {subject}: registry:{index} linux/{architecture} (--yes --type spdxjson)"
                ));
            }
        }
    }
    assert_eq!(asked, expected);
}

#[test]
fn what_can_not_be_signed_ends_it() {
    let registry = Registry::start();
    let indexes = registry.push("sha-1", "one");
    for programs in [[("cosign", "exit 1"), ("syft", LISTED)], [("cosign", SIGNED), ("syft", "exit 1")]] {
        let mut sign = script("sign");
        let _programs = stand_ins(&mut sign, &programs);
        assert_eq!(run(sign.args(&indexes)).code, Some(1));
    }
}
