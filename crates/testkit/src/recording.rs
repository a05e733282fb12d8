//! An API server in memory, for a shell's tests: it records what it is asked, keeps objects by
//! path, and fails on command.
//!
//! It knows no kinds, no validation, no defaulting and no watch; an apply is merged like a merge
//! patch. What depends on any of these is tested against [`crate::cluster`].

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use crate::builders::Object;

mod store;

use store::{Answer, Store, refusal};

/// The server. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct RecordingServer(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    store: Store,
    requests: Vec<Recorded>,
    faults: Vec<Fault>,
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// GET, POST and so on.
    pub method: Method,
    /// Path without the query.
    pub path: String,
    /// Query, empty where there is none.
    pub query: String,
    /// Body, `null` where there is none.
    pub body: Value,
}

/// What goes wrong, once, with the first request that it is meant for.
#[derive(Clone, Debug)]
pub struct Fault {
    method: Method,
    path: String,
    /// None for no answer at all.
    status: Option<StatusCode>,
    message: String,
    after_effect: bool,
}

impl Fault {
    /// A request of `method` whose path contains `path` is refused with `status`.
    pub fn refuse(method: Method, path: &str, status: u16) -> Self {
        Self::refuse_saying(method, path, status, "refused by the test")
    }

    /// As [`Self::refuse`], with this message.
    pub fn refuse_saying(method: Method, path: &str, status: u16, message: &str) -> Self {
        let status = StatusCode::from_u16(status).expect("a status code");
        let (path, message) = (path.to_owned(), message.to_owned());
        Self { method, path, status: Some(status), message, after_effect: false }
    }

    /// A request of `method` whose path contains `path` has no effect and is never answered.
    pub fn silence(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), status: None, message: String::new(), after_effect: false }
    }

    /// A request of `method` whose path contains `path` takes effect, but its answer is lost: the
    /// client is told 500.
    pub fn lose_answer(method: Method, path: &str) -> Self {
        Self::lose_answer_with(method, path, 500)
    }

    /// As [`Self::lose_answer`], but the client is told `status`: 409 stands for another client
    /// that did the same a moment before.
    pub fn lose_answer_with(method: Method, path: &str, status: u16) -> Self {
        Self { after_effect: true, ..Self::refuse(method, path, status) }
    }
}

impl RecordingServer {
    /// A server that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an object into it, as if it had been there always. `plural` is the kind's name in paths.
    #[must_use]
    pub fn holding<K>(self, plural: &str, object: &Object<K>) -> Self {
        self.state().store.put(plural, object.json());
        self
    }

    /// From now on a `TokenReview` of `token` has that status. Other tokens are no good.
    pub fn know_token(&self, token: &str, status: Value) {
        self.state().store.know(token, status);
    }

    /// Adds a fault.
    pub fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.serve(request).await) }
        });
        Client::new(service, "default")
    }

    /// All that it was asked, in order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state().requests.clone()
    }

    /// What it was asked to change, in order, as `METHOD /path`.
    pub fn writes(&self) -> Vec<String> {
        let requests = self.requests();
        let writes = requests.iter().filter(|request| request.method != Method::GET);
        writes.map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    /// The object at `path`, if there is one.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.state().store.get(path).cloned()
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let bytes = body.collect().await.expect("a body from memory").to_bytes();
        let recorded = Recorded {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") },
        };
        let answer = self.state().answer(recorded);
        let Some(Answer { status, body }) = answer else { return std::future::pending().await };
        let body = Body::from(body.to_string().into_bytes());
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(body)
            .expect("a response")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the server")
    }
}

impl State {
    fn answer(&mut self, request: Recorded) -> Option<Answer> {
        let meant = |fault: &Fault| fault.method == request.method && request.path.contains(&fault.path);
        let fault = self.faults.iter().position(meant).map(|index| self.faults.remove(index));
        let answer = match fault {
            Some(Fault { status: None, .. }) => None,
            Some(Fault { after_effect: false, status: Some(status), message, .. }) => {
                Some(refusal(status, &message))
            }
            Some(Fault { after_effect: true, status: Some(status), .. }) => {
                self.store.answer(&request);
                Some(refusal(status, "the answer is lost"))
            }
            None => Some(self.store.answer(&request)),
        };
        self.requests.push(request);
        answer
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
    use kube::{Api, ResourceExt};

    use serde_json::json;

    use super::*;
    use crate::builders::{migrator, pod};

    fn config_map(value: &str) -> ConfigMap {
        let object = json!({ "metadata": { "name": "settings" }, "data": { "key": value } });
        serde_json::from_value(object).unwrap()
    }

    fn code(error: kube::Error) -> u16 {
        match error {
            kube::Error::Api(status) => status.code,
            other => panic!("not an answer: {other}"),
        }
    }

    #[tokio::test]
    async fn what_is_created_is_there_and_cannot_be_created_again() {
        let server = RecordingServer::new();
        let maps = Api::<ConfigMap>::namespaced(server.client(), "shop");
        let made = maps.create(&PostParams::default(), &config_map("one")).await.unwrap();
        assert!(made.uid().is_some() && made.resource_version().is_some());
        assert_eq!(maps.get("settings").await.unwrap(), made);
        assert_eq!(maps.list(&ListParams::default()).await.unwrap().items, [made]);
        assert_eq!(code(maps.create(&PostParams::default(), &config_map("two")).await.unwrap_err()), 409);
        assert_eq!(server.writes().len(), 2);
    }

    #[tokio::test]
    async fn a_write_to_another_version_conflicts() {
        let server = RecordingServer::new();
        let maps = Api::<ConfigMap>::namespaced(server.client(), "shop");
        let made = maps.create(&PostParams::default(), &config_map("one")).await.unwrap();
        let mut changed = made.clone();
        changed.data = config_map("two").data;
        maps.replace("settings", &PostParams::default(), &changed).await.unwrap();
        assert_eq!(code(maps.replace("settings", &PostParams::default(), &made).await.unwrap_err()), 409);
        let other_uid = DeleteParams {
            preconditions: Some(Preconditions { uid: Some("another".into()), resource_version: None }),
            ..DeleteParams::default()
        };
        assert_eq!(code(maps.delete("settings", &other_uid).await.unwrap_err()), 409);
    }

    #[tokio::test]
    async fn a_status_is_written_apart_from_the_rest() {
        let server = RecordingServer::new().holding("migrators", &migrator("shop").selecting("app", "web"));
        let migrators = Api::<migrations_api::Migrator>::namespaced(server.client(), "shop");
        let patch = Patch::Merge(json!({ "spec": { "image": "ignored" }, "status": { "waiting": 3 } }));
        let patched = migrators.patch_status("shop", &PatchParams::default(), &patch).await.unwrap();
        assert_eq!(patched.status.unwrap().waiting, Some(3));
        assert_eq!(patched.spec.image, None);
    }

    #[tokio::test]
    async fn a_fault_happens_once_before_or_after_the_effect() {
        let server = RecordingServer::new().holding("pods", &pod("web"));
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(server.client(), "shop");
        server.fail(Fault::refuse(Method::DELETE, "/pods/web", 403));
        assert_eq!(code(pods.delete("web", &DeleteParams::default()).await.unwrap_err()), 403);
        assert!(server.object("/api/v1/namespaces/shop/pods/web").is_some());

        server.fail(Fault::lose_answer(Method::DELETE, "/pods/web"));
        assert_eq!(code(pods.delete("web", &DeleteParams::default()).await.unwrap_err()), 500);
        assert!(server.object("/api/v1/namespaces/shop/pods/web").is_none());
        assert_eq!(code(pods.delete("web", &DeleteParams::default()).await.unwrap_err()), 404);
    }
}
