//! The controller against a real etcd, kube-apiserver and kube-controller-manager. Deployments,
//! owners, Jobs and garbage collection are real; the test plays the kubelet.
//!
//! No webhook runs here, so Pods are annotated to need none: what is tested is what the controller
//! does, and that the API server takes its entries for what they say.

#[cfg(test)]
mod control_plane {
    pub(crate) mod shop;

    mod bad_input;
    mod connect;
    mod gather;
    mod leader;
    mod restarts;
    mod run;
    mod stories;
    mod watches;
}
