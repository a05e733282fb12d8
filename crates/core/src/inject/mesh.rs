//! Service meshes. Where a mesh redirects a Pod's traffic before the first init container starts (CNI),
//! its proxy doesn't run yet when a waiter asks: the port it asks at has to be left out (contract §7).
//!
//! Only a Pod that shows signs of a mesh is annotated. Injectors run before us, so also a Pod that is in a
//! mesh by its namespace's word shows them.

use std::collections::BTreeMap;

use super::pod::Pod;

struct Mesh {
    /// Annotation with the ports of others that its redirection leaves out, separated by commas.
    skipped_ports: &'static str,
    /// Containers that its injector adds.
    containers: &'static [&'static str],
    /// Annotations that only its injector, or a user of it, writes; of any value.
    marks: &'static [&'static str],
    /// Labels and annotations that ask for injection, with one of these values; of any where there are none.
    requests: &'static [(&'static str, &'static [&'static str])],
}

static MESHES: [Mesh; 2] = [
    Mesh {
        skipped_ports: "traffic.sidecar.istio.io/excludeOutboundPorts",
        containers: &["istio-proxy", "istio-init", "istio-validation"],
        marks: &["sidecar.istio.io/status"],
        requests: &[("sidecar.istio.io/inject", &["true"]), ("istio.io/rev", &[])],
    },
    Mesh {
        skipped_ports: "config.linkerd.io/skip-outbound-ports",
        containers: &["linkerd-proxy", "linkerd-init", "linkerd-network-validator"],
        marks: &["linkerd.io/proxy-version"],
        requests: &[("linkerd.io/inject", &["enabled", "ingress"])],
    },
];

/// The annotations that leave `port` out of redirection, each with what it said before.
pub(super) fn exclusions(pod: Pod<'_>, port: u16) -> BTreeMap<&'static str, String> {
    MESHES
        .iter()
        .filter(|mesh| mesh.has(pod))
        .map(|mesh| {
            let ports = pod.annotation(mesh.skipped_ports).unwrap_or_default();
            (mesh.skipped_ports, with_port(ports, port))
        })
        .collect()
}

impl Mesh {
    fn has(&'static self, pod: Pod<'_>) -> bool {
        let requests = |(name, values): &(&str, &[&str])| {
            [pod.label(name), pod.annotation(name)]
                .into_iter()
                .flatten()
                .any(|value| values.is_empty() || values.contains(&value))
        };
        self.containers.iter().any(|name| pod.has_container(name))
            || self.marks.iter().any(|name| pod.annotation(name).is_some())
            || pod.annotation(self.skipped_ports).is_some()
            || self.requests.iter().any(requests)
    }
}

/// A list of ports, and of ranges such as `4000-5000`, with `port` in it.
fn with_port(ports: &str, port: u16) -> String {
    if ports.split(',').any(|entry| covers(entry, port)) {
        return ports.to_owned();
    }
    match ports.trim_end_matches([',', ' ']) {
        "" => port.to_string(),
        ports => format!("{ports},{port}"),
    }
}

fn covers(entry: &str, port: u16) -> bool {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    match entry.split_once('-') {
        Some((from, to)) => {
            number(from).zip(number(to)).is_some_and(|(from, to)| (from..=to).contains(&port))
        }
        None => number(entry) == Some(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    const ISTIO: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
    const LINKERD: &str = "config.linkerd.io/skip-outbound-ports";

    #[rstest]
    #[case::istio_by_its_proxy(json!({"spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]}}), &[ISTIO])]
    #[case::istio_by_its_native_sidecar(json!({"spec": {"initContainers": [{"name": "istio-proxy"}]}}), &[ISTIO])]
    #[case::istio_by_its_check_of_the_cni(json!({"spec": {"initContainers": [{"name": "istio-validation"}]}}), &[ISTIO])]
    #[case::istio_by_its_status(json!({"metadata": {"annotations": {"sidecar.istio.io/status": "{}"}}}), &[ISTIO])]
    #[case::istio_by_label(json!({"metadata": {"labels": {"sidecar.istio.io/inject": "true"}}}), &[ISTIO])]
    #[case::istio_by_annotation(json!({"metadata": {"annotations": {"sidecar.istio.io/inject": "true"}}}), &[ISTIO])]
    #[case::istio_by_revision(json!({"metadata": {"labels": {"istio.io/rev": "canary"}}}), &[ISTIO])]
    #[case::istio_by_ports(json!({"metadata": {"annotations": {ISTIO: "3306"}}}), &[ISTIO])]
    #[case::not_in_istio(json!({"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}}), &[])]
    #[case::linkerd_by_its_proxy(json!({"spec": {"containers": [{"name": "linkerd-proxy"}]}}), &[LINKERD])]
    #[case::linkerd_by_its_native_sidecar(json!({"spec": {"initContainers": [{"name": "linkerd-proxy"}]}}), &[LINKERD])]
    #[case::linkerd_by_its_check_of_the_cni(
        json!({"spec": {"initContainers": [{"name": "linkerd-network-validator"}]}}), &[LINKERD])]
    #[case::linkerd_by_its_status(json!({"metadata": {"annotations": {"linkerd.io/proxy-version": "edge"}}}), &[LINKERD])]
    #[case::linkerd_by_annotation(json!({"metadata": {"annotations": {"linkerd.io/inject": "enabled"}}}), &[LINKERD])]
    #[case::linkerd_as_ingress(json!({"metadata": {"annotations": {"linkerd.io/inject": "ingress"}}}), &[LINKERD])]
    #[case::linkerd_by_ports(json!({"metadata": {"annotations": {LINKERD: "3306"}}}), &[LINKERD])]
    #[case::not_in_linkerd(json!({"metadata": {"annotations": {"linkerd.io/inject": "disabled"}}}), &[])]
    #[case::both(
        json!({"spec": {"containers": [{"name": "linkerd-proxy"}, {"name": "istio-proxy"}]}}), &[LINKERD, ISTIO])]
    #[case::neither(json!({"metadata": {"annotations": {"other": "true"}}, "spec": {"containers": [{"name": "app"}]}}), &[])]
    fn a_pod_of_a_mesh_is_annotated(#[case] pod: Value, #[case] expected: &[&str]) {
        assert_eq!(exclusions(Pod(&(&pod).into()), 9444).into_keys().collect::<Vec<_>>(), expected);
    }

    #[rstest]
    #[case::empty("", "9444")]
    #[case::others("3306,25", "3306,25,9444")]
    #[case::spaces("3306, 25, ", "3306, 25,9444")]
    #[case::there_already("3306,9444", "3306,9444")]
    #[case::there_among_spaces(" 9444 , 25", " 9444 , 25")]
    #[case::part_of_a_number("19444", "19444,9444")]
    #[case::range("4000-5000", "4000-5000,9444")]
    #[case::in_a_range("25,9000-9999", "25,9000-9999")]
    #[case::unreadable("all", "all,9444")]
    fn what_a_list_said_stays(#[case] before: &str, #[case] after: &str) {
        assert_eq!(with_port(before, 9444), after);
        assert_eq!(with_port(after, 9444), after);
    }
}
