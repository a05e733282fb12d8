//! The Helm chart's templates are the manifests, with what users may set put in. They are written from the
//! manifests by named edits, so that whoever changes a manifest changes the chart. That what the chart renders
//! equals what kustomize does is seen in `helm.rs`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const HINT: &str =
    "run `UPDATE=1 cargo test -p migrations-testkit --features cluster --test chart` and commit the change";

/// A template, the manifest it is made from, and what takes the place of a text that is there once.
struct Template {
    name: &'static str,
    manifest: &'static str,
    edits: &'static [(&'static str, &'static str)],
}

const TEMPLATES: [Template; 7] = [
    Template {
        name: "namespace.yaml",
        manifest: "namespace.yaml",
        // Helm makes the namespace, or the user did.
        edits: &[(
            "# The operator's own namespace. Pods in it are never gated.
apiVersion: v1
kind: Namespace
metadata:
  name: migrations-operator
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
---
",
            r#"{{- include "migrations-operator.checkNamespace" . -}}
"#,
        )],
    },
    Template {
        name: "crd.yaml",
        manifest: "crd.yaml",
        edits: &[
            (
                "# Made from the types of crates/api; `UPDATE=1 cargo test -p migrations-api --test crd` writes it.\n",
                "",
            ),
            (
                "  name: migrators.migrations.coderanger.net\n",
                "  name: migrators.migrations.coderanger.net
  annotations:
    # With it go all Migrators, their records and migrations under way.
    helm.sh/resource-policy: keep
",
            ),
        ],
    },
    Template { name: "rbac.yaml", manifest: "rbac.yaml", edits: &[] },
    Template { name: "configurations.yaml", manifest: "configurations.yaml", edits: &[] },
    Template {
        name: "network-policies.yaml",
        manifest: "network-policies.yaml",
        edits: &[
            (
                "# Who may reach the operator",
                "{{- if .Values.networkPolicies.enabled }}\n# Who may reach the operator",
            ),
            ("        - port: 16443\n", "        - port: 16443\n{{- end }}\n"),
        ],
    },
    Template { name: "controller.yaml", manifest: "controller.yaml", edits: CONTROLLER },
    Template { name: "webhook.yaml", manifest: "webhook.yaml", edits: WEBHOOK },
];

const POD_MONITOR: Template = Template {
    name: "pod-monitor.yaml",
    manifest: "pod-monitor/pod-monitor.yaml",
    edits: &[
        (
            "# Replicas of the controller",
            "{{- if .Values.podMonitor.enabled }}\n# Replicas of the controller",
        ),
        (
            "  namespace: migrations-operator\nspec:\n",
            "  namespace: migrations-operator
  labels:
    {{- with .Values.podMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
",
        ),
        ("      path: /metrics\n", "      path: /metrics\n{{- end }}\n"),
    ],
};

const CONTROLLER: &[(&str, &str)] = &[
    ("  replicas: 2\n", "  replicas: {{ .Values.controller.replicas }}\n"),
    (
        "      serviceAccountName: migrations-controller\n",
        r"      serviceAccountName: migrations-controller
      {{- with .Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.controller.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.controller.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
",
    ),
    (
        "        kubernetes.io/os: linux\n",
        r"        kubernetes.io/os: linux
        {{- with .Values.controller.nodeSelector }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
",
    ),
    (
        "image: migrations-controller\n",
        "image: {{ include \"migrations-operator.image\" (list . \"controller\") }}\n",
    ),
    ("imagePullPolicy: IfNotPresent", "imagePullPolicy: {{ .Values.image.pullPolicy }}"),
    (
        "          env:\n",
        r"          {{- with .Values.controller.args }}
          args:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          env:
",
    ),
    (
        RESOURCES,
        "          resources:\n            {{- toYaml .Values.controller.resources | nindent 12 }}\n",
    ),
    (
        "---\napiVersion: policy/v1\n",
        "{{- if gt (int .Values.controller.replicas) 1 }}\n---\napiVersion: policy/v1\n",
    ),
    (
        "  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      app.kubernetes.io/name: migrations-controller
",
        "  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      app.kubernetes.io/name: migrations-controller
{{- end }}
",
    ),
];

const WEBHOOK: &[(&str, &str)] = &[
    ("  replicas: 2\n", "  replicas: {{ .Values.webhook.replicas }}\n"),
    (
        "      maxSurge: 1\n      maxUnavailable: 0\n",
        r"      {{- if .Values.webhook.hostNetwork }}
      # A node has each port once, so a new replica may have to wait for an old one to go.
      maxSurge: 0
      maxUnavailable: 1
      {{- else }}
      maxSurge: 1
      maxUnavailable: 0
      {{- end }}
",
    ),
    (
        "      serviceAccountName: migrations-webhook\n",
        r"      serviceAccountName: migrations-webhook
      {{- if .Values.webhook.hostNetwork }}
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      {{- end }}
      {{- with .Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.webhook.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.webhook.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
",
    ),
    (
        "        kubernetes.io/os: linux\n",
        r"        kubernetes.io/os: linux
        {{- with .Values.webhook.nodeSelector }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
",
    ),
    (
        "image: migrations-webhook\n",
        "image: {{ include \"migrations-operator.image\" (list . \"webhook\") }}\n",
    ),
    ("imagePullPolicy: IfNotPresent", "imagePullPolicy: {{ .Values.image.pullPolicy }}"),
    (
        "          env:\n",
        r#"          {{- with include "migrations-operator.webhookArgs" . | trim }}
          args:
            {{- . | nindent 12 }}
          {{- end }}
          env:
"#,
    ),
    (
        "value: migrations-waiter\n",
        "value: {{ include \"migrations-operator.image\" (list . \"waiter\") }}\n",
    ),
    ("containerPort: 9443\n", "containerPort: {{ .Values.webhook.ports.admission }}\n"),
    ("containerPort: 9444\n", "containerPort: {{ .Values.webhook.ports.questions }}\n"),
    ("containerPort: 8080\n", "containerPort: {{ .Values.webhook.ports.probes }}\n"),
    (RESOURCES, "          resources:\n            {{- toYaml .Values.webhook.resources | nindent 12 }}\n"),
    (
        "---\napiVersion: policy/v1\n",
        "{{- if gt (int .Values.webhook.replicas) 1 }}\n---\napiVersion: policy/v1\n",
    ),
    (
        "  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      app.kubernetes.io/name: migrations-webhook
",
        "  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      app.kubernetes.io/name: migrations-webhook
{{- end }}
",
    ),
];

/// As shipped; the chart's values have the same.
const RESOURCES: &str = "          resources:
            requests:
              cpu: 50m
              memory: 64Mi
            limits:
              memory: 256Mi
";

impl Template {
    /// What the template should be.
    fn text(&self) -> String {
        let Self { manifest, edits, .. } = self;
        let mut text = read(&format!("manifests/{manifest}"));
        assert!(!text.contains("{{"), "manifests/{manifest} would be taken for a template");
        for (old, new) in *edits {
            assert_eq!(
                text.matches(old).count(),
                1,
                "in manifests/{manifest}, where the chart edits {old:?}"
            );
            text = text.replace(old, new);
        }
        let text = text.replace("namespace: migrations-operator", "namespace: {{ .Release.Namespace }}");
        let documents: Vec<_> = text.split("---\n").map(with_labels).collect();
        format!(
            "# Made from manifests/{manifest} by crates/testkit/tests/chart.rs.\n{}",
            documents.join("---\n")
        )
    }

    fn path(&self) -> PathBuf {
        workspace().join("chart/templates").join(self.name)
    }
}

/// The document with the chart's labels, where kustomize puts its own.
fn with_labels(document: &str) -> String {
    const LABELS: &str = "    {{- include \"migrations-operator.labels\" $ | nindent 4 }}\n";
    const POD_LABELS: &str = "        {{- include \"migrations-operator.podLabels\" $ | nindent 8 }}\n";
    let Some((before, rest)) = document.split_once("\nmetadata:\n") else { return document.to_owned() };
    let end = rest.split_inclusive('\n').take_while(|line| line.starts_with("  ")).map(str::len).sum();
    let (metadata, after) = rest.split_at(end);
    let metadata = match metadata.split_once("  labels:\n") {
        Some((fields, labels)) => format!("{fields}  labels:\n{LABELS}{labels}"),
        None => format!("{metadata}  labels:\n{LABELS}"),
    };
    let after = after
        .replace("    metadata:\n      labels:\n", &format!("    metadata:\n      labels:\n{POD_LABELS}"));
    format!("{before}\nmetadata:\n{metadata}{after}")
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&read(path)).unwrap()
}

#[test]
fn the_charts_templates_are_made_from_the_manifests() {
    for template in TEMPLATES.iter().chain([&POD_MONITOR]) {
        let expected = template.text();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(template.path(), expected).unwrap();
        } else {
            let shipped = fs::read_to_string(template.path()).unwrap_or_default();
            assert!(
                shipped == expected,
                "chart/templates/{} is not what the manifests say; {HINT}",
                template.name
            );
        }
    }
}

/// A manifest without a template, or a template that nobody writes any more.
#[test]
fn each_manifest_has_a_template_and_nothing_else_has() {
    let kustomization = yaml("manifests/kustomization.yaml");
    let mut manifests: Vec<_> =
        kustomization["resources"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    manifests.push(POD_MONITOR.manifest);
    manifests.sort_unstable();
    let mut edited: Vec<_> =
        TEMPLATES.iter().chain([&POD_MONITOR]).map(|template| template.manifest).collect();
    edited.sort_unstable();
    assert_eq!(edited, manifests);

    let mut expected: Vec<_> = TEMPLATES.iter().chain([&POD_MONITOR]).map(Template::path).collect();
    let by_hand = ["NOTES.txt", "_helpers.tpl"].map(|name| workspace().join("chart/templates").join(name));
    expected.extend(by_hand);
    expected.sort();
    let entries = fs::read_dir(workspace().join("chart/templates")).unwrap();
    let mut shipped: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    shipped.sort();
    assert_eq!(shipped, expected);
}

#[test]
fn the_chart_has_the_operators_version_and_images() {
    let chart = yaml("chart/Chart.yaml");
    assert_eq!((&chart["version"], &chart["appVersion"]), (&VERSION.into(), &VERSION.into()));
    assert!(read("README.md").contains(&format!("migrations-operator-{VERSION}.tgz")));
    let images: Value = serde_json::from_str(&read("nix/images.json")).unwrap();
    let image = &yaml("chart/values.yaml")["image"];
    assert_eq!(image["registry"], images["registry"]);
    let programs = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(programs(&image["digests"]), programs(&images["programs"]));
}
