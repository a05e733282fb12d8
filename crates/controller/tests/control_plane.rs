//! The controller against a real etcd, kube-apiserver and kube-controller-manager. Deployments,
//! owners, Jobs and garbage collection are real; the test plays the kubelet.
//!
//! No webhook runs here, but one that answers the controller's probe and lets every Pod pass, for tests of
//! the webhook entries. All others share a control plane without entries, where policies write the waiter
//! into Pods.

#[cfg(test)]
mod control_plane {
    pub(crate) mod admission;
    pub(crate) mod kinds;
    mod runs;
    pub(crate) mod shared;
    pub(crate) mod shop;
    pub(crate) mod webhook;

    mod audit;
    mod bad_input;
    mod connect;
    mod due;
    mod entries;
    mod exactly_once;
    mod gather;
    mod identity;
    mod leader;
    mod locks;
    mod marks;
    mod restarts;
    mod run;
    mod seen;
    mod stories;
    mod unstarted;
    mod watches;
    mod workloads;
}
