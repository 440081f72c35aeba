//! Networks: each session that has a container on one has its own, for as long as it has such a container.
//!
//! To make one takes an engine a third as long as to start a container, so one that a session has left is kept for the next
//! (empty, it holds nothing of the session before), and one is made ahead where none is left. An engine has room for a few
//! dozen networks only: there is one spare network at most, and one that nobody has taken for a while is removed. What
//! cannot be removed is tried again when a container is started, once a minute at most.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bollard::{
    Docker,
    errors::Error as ApiError,
    models::{NetworkCreateRequest, NetworkDisconnectRequest},
    query_parameters::{InspectContainerOptions, InspectNetworkOptions},
};
use tokio::sync::OnceCell;

use super::{DockerError, Engine, failed};
use crate::{ids::SessionId, lifecycle::Count};

/// How long after a session got its network one is made ahead: not while the engine starts what is wanted now.
const AHEAD_AFTER: Duration = Duration::from_secs(1);

/// How long a spare network is kept that no session takes.
const SPARE_FOR: Duration = Duration::from_secs(300);

/// Networks that sessions are on, the one that is spare, and those that could not be removed.
#[derive(Default)]
pub(super) struct Networks {
    state: Mutex<State>,
    /// Those that are being made ahead.
    making: Count,
}

#[derive(Default)]
struct State {
    taken: BTreeMap<Option<SessionId>, Taken>,
    spare: Option<Arc<Network>>,
    /// Whether one is about to be made ahead.
    ahead: bool,
    undone: Vec<String>,
}

struct Taken {
    network: Arc<Network>,
    users: usize,
}

struct Network {
    name: String,
    made: OnceCell<()>,
}

/// Keeps a session's network its own. When the last one is dropped, the network is another session's to have.
pub(super) struct NetworkUse {
    engine: Arc<Engine>,
    session: Option<SessionId>,
    network: Arc<Network>,
}

impl NetworkUse {
    pub(super) fn name(&self) -> &str {
        &self.network.name
    }

    /// Completes when the engine has the network.
    pub(super) async fn made(&self) -> Result<(), DockerError> {
        let make = || self.engine.make_network(&self.network.name);
        self.network.made.get_or_try_init(make).await.copied()
    }
}

impl Drop for NetworkUse {
    fn drop(&mut self) {
        let mut state = self.engine.networks.state();
        let Some(taken) = state.taken.get_mut(&self.session) else { return };
        taken.users -= 1;
        if taken.users > 0 {
            return;
        }
        state.taken.remove(&self.session);
        let (engine, network) = (self.engine.clone(), self.network.clone());
        drop(self.engine.tasks.spawn(async move { engine.leave(network).await }));
    }
}

impl Networks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when none is being made ahead.
    pub(super) async fn none_in_the_making(&self) {
        self.making.none().await;
    }

    /// What was to be made ahead is made now. Says whether there is a spare one already.
    fn no_more_ahead(&self) -> bool {
        let mut state = self.state();
        state.ahead = false;
        state.spare.is_some()
    }

    fn keep(&self, network: &Arc<Network>) -> bool {
        let mut state = self.state();
        let wanted = state.spare.is_none();
        if wanted {
            state.spare = Some(network.clone());
        }
        wanted
    }

    /// Gives up the spare network, if it still is this one.
    fn take_back(&self, network: &Arc<Network>) -> bool {
        self.state().spare.take_if(|spare| Arc::ptr_eq(spare, network)).is_some()
    }
}

impl Engine {
    /// The network that a session's containers share with each other and with nobody else's. It may have to be made.
    pub(super) fn network(self: &Arc<Self>, session: Option<&SessionId>) -> NetworkUse {
        let mut state = self.networks.state();
        let State { taken, spare, ahead, .. } = &mut *state;
        let taken = taken.entry(session.cloned()).or_insert_with(|| {
            if !std::mem::replace(ahead, true) {
                drop(self.tasks.spawn(self.clone().make_ahead()));
            }
            Taken { network: spare.take().unwrap_or_else(|| Arc::new(self.another())), users: 0 }
        });
        taken.users += 1;
        NetworkUse { engine: self.clone(), session: session.cloned(), network: taken.network.clone() }
    }

    fn another(&self) -> Network {
        let name = format!("mcp-broker-{}-{}", self.folder, uuid::Uuid::now_v7().simple());
        Network { name, made: OnceCell::new() }
    }

    /// Makes sure that the next session finds a network.
    async fn make_ahead(self: Arc<Self>) {
        let stopping = self.tasks.stopping_token();
        tokio::select! {
            () = tokio::time::sleep(AHEAD_AFTER) => {}
            () = stopping.cancelled() => return,
        }
        // Who stops the broker waits for this one, or this sees that it stops.
        let _making = self.networks.making.one_more();
        if self.networks.no_more_ahead() || self.tasks.is_stopping() {
            return;
        }
        let network = Arc::new(self.another());
        match self.make_network(&network.name).await {
            Ok(()) => self.leave(network).await,
            Err(error) => {
                tracing::debug!(%error, "no network was made for the next session");
                // The engine may have made it, and not been able to say so.
                self.remove_network_or_remember(&network.name).await;
            }
        }
    }

    async fn make_network(&self, name: &str) -> Result<(), DockerError> {
        let docker = self.docker().await?;
        // One that was made ahead may be gone: an engine is told to remove networks that nothing uses.
        match docker.inspect_network(name, None::<InspectNetworkOptions>).await {
            Ok(_) => return Ok(()),
            Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(source) => return Err(DockerError::Api { what: "look for the session's network", source }),
        }
        let request =
            NetworkCreateRequest { name: name.to_owned(), labels: Some(self.own_labels()), ..Default::default() };
        match docker.create_network(request).await {
            Ok(_) => Ok(()),
            Err(ApiError::DockerResponseServerError { message, .. }) if message.contains("address pool") => {
                Err(DockerError::NoAddresses)
            }
            Err(source) => Err(DockerError::Api { what: "make a network for the session", source }),
        }
    }

    /// Keeps a network that no session has for the next one, or removes it.
    async fn leave(self: Arc<Self>, network: Arc<Network>) {
        // What is left then is removed as a whole.
        if self.tasks.is_stopping() {
            return;
        }
        // Made or not is for the next session to see again.
        let network = Arc::new(Network { name: network.name.clone(), made: OnceCell::new() });
        // A container that could not be removed may be about to join it.
        let may_stay = self.undone().is_empty() && self.is_empty(&network.name).await;
        if !may_stay || !self.networks.keep(&network) {
            self.remove_network_or_remember(&network.name).await;
            return;
        }
        let engine = self.clone();
        drop(self.tasks.spawn(async move { engine.give_up(network, SPARE_FOR).await }));
    }

    /// Removes a spare network that no session has taken by then.
    async fn give_up(&self, network: Arc<Network>, after: Duration) {
        let stopping = self.tasks.stopping_token();
        tokio::select! {
            () = tokio::time::sleep(after) => {}
            () = stopping.cancelled() => return,
        }
        if self.networks.take_back(&network) {
            self.remove_network_or_remember(&network.name).await;
        }
    }

    /// Whether the engine has the network, and no container on it.
    async fn is_empty(&self, name: &str) -> bool {
        let Ok(docker) = self.docker().await else { return false };
        let inspected = docker.inspect_network(name, None::<InspectNetworkOptions>).await;
        inspected.is_ok_and(|network| network.containers.is_some_and(|on_it| on_it.is_empty()))
    }

    async fn remove_network_or_remember(&self, name: &str) {
        // Why it could not is in the log.
        if self.remove_network(name).await.is_err() {
            self.networks.state().undone.push(name.to_owned());
        }
    }

    pub(super) fn any_undone_network(&self) -> bool {
        !self.networks.state().undone.is_empty()
    }

    /// Removes networks that could not be removed before, until the engine does not answer.
    pub(super) async fn remove_undone_networks(&self) {
        let mut undone = std::mem::take(&mut self.networks.state().undone).into_iter();
        while let Some(name) = undone.next() {
            let Err(error) = self.remove_network(&name).await else { continue };
            let mut state = self.networks.state();
            state.undone.push(name);
            if let DockerError::Unreachable { .. } | DockerError::None = self.plainly(error) {
                state.undone.extend(undone);
                return;
            }
        }
    }

    /// Removes a network.
    ///
    /// An engine that was told to remove a container while it started it may keep its place in the network, which then can
    /// be given up by the container's name only.
    pub(super) async fn remove_network(&self, network: &str) -> Result<(), DockerError> {
        let docker = self.docker().await?;
        let mut removed = docker.remove_network(network).await;
        let mut nothing_on_it = false;
        if matches!(removed, Err(ApiError::DockerResponseServerError { status_code: 403, .. })) {
            nothing_on_it = disconnect_what_is_gone(docker, network).await;
            removed = docker.remove_network(network).await;
        }
        match removed {
            Ok(()) | Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => {
                if nothing_on_it {
                    // It has lost count: moby/moby, issue 42119.
                    tracing::warn!(%error, network, "a network was not removed, though the engine names nothing on it: restart the engine");
                } else {
                    tracing::warn!(%error, network, "a network was not removed");
                }
                Err(failed("remove a network")(error))
            }
        }
    }
}

/// Gives up the places in a network of containers that the engine does not have any more. Says whether no other is left.
async fn disconnect_what_is_gone(docker: &Docker, network: &str) -> bool {
    let Ok(inspected) = docker.inspect_network(network, None::<InspectNetworkOptions>).await else { return false };
    let mut nothing_on_it = true;
    for (id, place) in inspected.containers.unwrap_or_default() {
        let container = docker.inspect_container(&id, None::<InspectContainerOptions>).await;
        let gone = matches!(container, Err(ApiError::DockerResponseServerError { status_code: 404, .. }));
        nothing_on_it &= gone;
        if gone {
            let request = NetworkDisconnectRequest { container: place.name.unwrap_or(id), force: Some(true) };
            // If it fails, so does the removal of the network, which says why.
            let _ = docker.disconnect_network(network, request).await;
        }
    }
    nothing_on_it
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::atomic::{AtomicBool, Ordering},
    };

    use axum::{Json, extract::State};
    use http::{Method, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::{config::ContainerSettings, lifecycle::Tasks};

    /// An engine that knows networks only.
    #[derive(Default)]
    struct Fake {
        /// How many containers are on each.
        networks: Mutex<BTreeMap<String, usize>>,
        /// Whether the containers that are on a network are there no more.
        gone: AtomicBool,
        /// Whether it refuses to remove what nothing is on.
        lost_count: AtomicBool,
        /// Whether it takes its time to make one, and whether it was told to meanwhile.
        busy: AtomicBool,
        told: AtomicBool,
    }

    impl Fake {
        fn networks(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
            self.networks.lock().unwrap()
        }

        fn answer(&self, method: &Method, path: &[&str], body: &Value) -> (StatusCode, Value) {
            let not_found = (StatusCode::NOT_FOUND, json!({"message": "no such thing"}));
            let done = (StatusCode::NO_CONTENT, json!({}));
            let mut networks = self.networks();
            match (method.as_str(), path) {
                ("GET", [.., "version"]) => (StatusCode::OK, json!({"ApiVersion": "1.44", "Version": "1"})),
                ("POST", [.., "networks", "create"]) => {
                    networks.insert(body["Name"].as_str().unwrap().to_owned(), 0);
                    (StatusCode::CREATED, json!({"Id": "1", "Warning": ""}))
                }
                ("GET", [.., "networks"]) => {
                    (StatusCode::OK, networks.keys().map(|name| json!({"Name": name})).collect())
                }
                ("POST", [.., "networks", name, "disconnect"]) if body["Container"] == "box" => {
                    *networks.get_mut(*name).unwrap() -= 1;
                    done
                }
                ("GET", [.., "networks", name]) => match networks.get(*name) {
                    Some(containers) => {
                        let on_it: serde_json::Map<_, _> =
                            (0..*containers).map(|number| (format!("ep-{number}"), json!({"Name": "box"}))).collect();
                        (StatusCode::OK, json!({"Name": name, "Containers": on_it}))
                    }
                    None => not_found,
                },
                ("GET", [.., "containers", _, "json"]) if self.gone.load(Ordering::SeqCst) => not_found,
                ("GET", [.., "containers", id, "json"]) => (StatusCode::OK, json!({"Id": id})),
                ("DELETE", [.., "networks", name]) => match networks.get(*name) {
                    Some(containers) if *containers > 0 || self.lost_count.load(Ordering::SeqCst) => {
                        (StatusCode::FORBIDDEN, json!({"message": "has active endpoints"}))
                    }
                    Some(_) => {
                        networks.remove(*name);
                        done
                    }
                    None => not_found,
                },
                _ => (StatusCode::OK, json!([])),
            }
        }
    }

    async fn serve(
        State(fake): State<Arc<Fake>>,
        method: Method,
        uri: http::Uri,
        body: axum::body::Bytes,
    ) -> (StatusCode, Json<Value>) {
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let path: Vec<&str> = uri.path().split('/').collect();
        if path.ends_with(&["networks", "create"]) && fake.busy.load(Ordering::SeqCst) {
            fake.told.store(true, Ordering::SeqCst);
            until(|| !fake.busy.load(Ordering::SeqCst)).await;
        }
        let (status, answer) = fake.answer(&method, &path, &body);
        (status, Json(answer))
    }

    fn started() -> (Arc<Engine>, Arc<Fake>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let (tasks, _crashes) = Tasks::new();
        let fake = Arc::new(Fake::default());
        let routes = axum::Router::new().fallback(serve).with_state(fake.clone());
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        drop(tasks.spawn(async move { axum::serve(listener, routes).await }));
        let settings =
            ContainerSettings { engine: Some(format!("unix://{}", socket.display())), ..ContainerSettings::default() };
        let engine = Engine::new(settings, ("folder", folder.path()), Duration::from_secs(1), &tasks);
        (Arc::new(engine), fake, folder)
    }

    async fn until(what: impl Fn() -> bool) {
        let seen = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), seen).await.expect("it comes about");
    }

    fn spare(engine: &Engine) -> Option<String> {
        engine.networks.state().spare.as_ref().map(|network| network.name.clone())
    }

    #[tokio::test]
    async fn a_network_that_a_session_has_left_is_the_next_ones() {
        let (engine, fake, _folder) = started();
        let [one, two, three] = std::array::from_fn(|_| SessionId::random());
        let (first, again) = (engine.network(Some(&one)), engine.network(Some(&one)));
        first.made().await.unwrap();
        again.made().await.unwrap();
        assert_eq!(first.name(), again.name());
        assert_eq!(fake.networks().len(), 1);
        let name = first.name().to_owned();
        drop(first);
        assert_eq!(engine.network(Some(&one)).name(), name, "a container is on it still");
        drop(again);
        until(|| spare(&engine).as_deref() == Some(&name)).await;
        let (next, other) = (engine.network(Some(&two)), engine.network(Some(&three)));
        assert_eq!(next.name(), name);
        assert_ne!(other.name(), name);
        fake.networks().clear();
        next.made().await.unwrap();
        assert!(fake.networks().contains_key(&name), "one that is gone is made again");
    }

    #[tokio::test]
    async fn the_next_session_finds_one_made() {
        let (engine, fake, _folder) = started();
        let network = engine.network(None);
        network.made().await.unwrap();
        until(|| spare(&engine).is_some_and(|spare| spare != network.name())).await;
        assert_eq!(fake.networks().len(), 2);
        drop(network);
        until(|| fake.networks().len() == 1).await;
        assert!(spare(&engine).is_some_and(|spare| fake.networks().contains_key(&spare)), "one is enough");
    }

    #[tokio::test]
    async fn one_that_is_being_made_when_the_broker_stops_is_not_left() {
        let (engine, fake, _folder) = started();
        let network = engine.network(None);
        network.made().await.unwrap();
        fake.busy.store(true, Ordering::SeqCst);
        until(|| fake.told.load(Ordering::SeqCst)).await;
        engine.tasks.stop();
        let mut closing = Box::pin(engine.close());
        let early = tokio::time::timeout(Duration::from_millis(100), &mut closing).await;
        assert!(early.is_err(), "what is not there yet cannot be removed");
        fake.busy.store(false, Ordering::SeqCst);
        closing.await;
        assert!(fake.networks().is_empty());
    }

    #[tokio::test]
    async fn a_spare_network_that_nobody_has_taken_is_given_up() {
        let (engine, fake, _folder) = started();
        let network = engine.network(None);
        network.made().await.unwrap();
        drop(network);
        until(|| spare(&engine).is_some()).await;
        let kept = engine.networks.state().spare.clone().unwrap();
        let taken = engine.network(None);
        engine.give_up(kept, Duration::ZERO).await;
        assert!(fake.networks().contains_key(taken.name()), "somebody has it");
        drop(taken);
        until(|| spare(&engine).is_some()).await;
        let kept = engine.networks.state().spare.clone().unwrap();
        engine.give_up(kept.clone(), Duration::ZERO).await;
        assert!(!fake.networks().contains_key(&kept.name));
    }

    #[tokio::test]
    async fn while_a_container_could_not_be_removed_no_network_is_kept() {
        let (engine, fake, _folder) = started();
        let network = engine.network(None);
        network.made().await.unwrap();
        let name = network.name().to_owned();
        engine.undone().push("container".to_owned());
        drop(network);
        until(|| !fake.networks().contains_key(&name)).await;
        assert!(spare(&engine).is_none_or(|spare| spare != name));
    }

    /// A network that its session has left, while so many containers are on it.
    async fn left_with(engine: &Arc<Engine>, fake: &Fake, containers: usize) -> String {
        let network = engine.network(None);
        network.made().await.unwrap();
        fake.networks().insert(network.name().to_owned(), containers);
        network.name().to_owned()
    }

    #[tokio::test]
    async fn a_network_with_a_container_on_it_is_nobody_elses() {
        let (engine, fake, _folder) = started();
        let name = left_with(&engine, &fake, 1).await;
        until(|| engine.networks.state().undone == [name.clone()]).await;
        fake.gone.store(true, Ordering::SeqCst);
        engine.remove_undone_networks().await;
        assert!(!fake.networks().contains_key(&name), "what is gone is taken off it");
        assert!(engine.networks.state().undone.is_empty());
    }

    #[tokio::test]
    async fn a_network_that_an_engine_does_not_let_go_of_is_tried_again() {
        let (engine, fake, _folder) = started();
        fake.lost_count.store(true, Ordering::SeqCst);
        fake.gone.store(true, Ordering::SeqCst);
        let name = left_with(&engine, &fake, 2).await;
        until(|| engine.networks.state().undone == [name.clone()]).await;
        assert_eq!(fake.networks()[&name], 0);
        fake.lost_count.store(false, Ordering::SeqCst);
        engine.remove_undone_networks().await;
        assert!(!fake.networks().contains_key(&name) && engine.networks.state().undone.is_empty());
    }
}
