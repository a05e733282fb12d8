//! What every injected waiter is given. It comes from the command line and from the operator's own
//! Service, whose addresses spare waiters the cluster's DNS.

use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::Service;
use migrations_api::names;
use migrations_core::inject::{Resources, Settings, UnsupportedPods};

/// The settings in force. Clones speak of the same ones.
#[derive(Clone, Debug)]
pub struct InForce(Arc<RwLock<Arc<Settings>>>);

impl InForce {
    /// Settings of an operator in `namespace`, before its Service is known: waiters ask by name.
    pub fn new(
        namespace: &str,
        image: String,
        resources: Resources,
        unsupported: UnsupportedPods,
        timeout: Option<u64>,
    ) -> Self {
        let server_name = format!("{}.{namespace}.svc", names::WEBHOOK_SERVICE);
        let servers = servers(&[], &server_name);
        let settings = Settings { image, servers, server_name, resources, unsupported, timeout };
        Self(Arc::new(RwLock::new(Arc::new(settings))))
    }

    /// The settings as they are now.
    pub fn get(&self) -> Arc<Settings> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the addresses of the operator's Service over; returns whether they are new.
    pub fn service(&self, service: Option<&Service>) -> bool {
        let spec = service.and_then(|service| service.spec.as_ref());
        let addresses = spec.and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
        let mut settings = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let servers = servers(addresses, &settings.server_name);
        if settings.servers == servers {
            return false;
        }
        Arc::make_mut(&mut settings).servers = servers;
        true
    }
}

/// Addresses first, the name last.
fn servers(addresses: &[String], name: &str) -> Vec<String> {
    let port = names::QUESTION_PORT;
    // A headless Service says "None".
    let addresses = addresses.iter().filter(|address| *address != "None").map(|address| {
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    });
    addresses.chain([format!("{name}:{port}")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_before_the_name() {
        let resources = Resources { cpu: "100m".to_owned(), memory: "32Mi".to_owned() };
        let unsupported = UnsupportedPods::default();
        let settings = InForce::new("operator", "w:1".to_owned(), resources, unsupported, None);
        let name = "migrations-webhook.operator.svc:9444";
        assert_eq!(settings.get().servers, [name]);

        let service = |ips: &[&str]| -> Service {
            serde_json::from_value(serde_json::json!({"spec": {"clusterIPs": ips}})).unwrap()
        };
        assert!(settings.service(Some(&service(&["10.96.0.7", "fd00::7"]))));
        assert!(!settings.service(Some(&service(&["10.96.0.7", "fd00::7"]))));
        assert_eq!(settings.get().servers, ["10.96.0.7:9444", "[fd00::7]:9444", name]);

        assert!(settings.service(Some(&service(&["None"]))));
        assert_eq!(settings.get().servers, [name]);
    }
}
