//! The controller against a real etcd, kube-apiserver and kube-controller-manager. Deployments,
//! owners, Jobs and garbage collection are real; the test plays the kubelet.
//!
//! No webhook runs here. Tests of the webhook entries annotate their Pods to need none; all others
//! share a control plane without entries, where policies write the waiter into Pods.

#[cfg(test)]
mod control_plane {
    pub(crate) mod admission;
    pub(crate) mod kinds;
    mod runs;
    pub(crate) mod shared;
    pub(crate) mod shop;

    mod bad_input;
    mod connect;
    mod due;
    mod exactly_once;
    mod gather;
    mod identity;
    mod leader;
    mod locks;
    mod restarts;
    mod run;
    mod seen;
    mod stories;
    mod unstarted;
    mod watches;
    mod workloads;
}
