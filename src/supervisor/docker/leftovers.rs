//! Removing: what a broker before this one left, what a session left that has ended, and what could not be removed before.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError},
    time::Duration,
};

use bollard::{
    errors::Error as ApiError,
    query_parameters::{
        ListContainersOptions, ListNetworksOptions, ListVolumesOptions, RemoveContainerOptions, RemoveVolumeOptions,
        WaitContainerOptions,
    },
};
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::{AT_ONCE_MAX, DockerError, Engine, FOLDER, RUN, SESSION, failed};
use crate::ids::SessionId;

/// How long the end of a session waits for an engine that was not spoken to yet.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long is waited for a container that something else removes, and for a network that is in the making.
const GONE_MAX: Duration = Duration::from_secs(10);

/// How often what sessions left is tried again when a container is started.
const CLEAR_EVERY: Duration = Duration::from_secs(60);

/// Sessions that are remembered because what they left could not be removed.
const ENDED_MAX: usize = 1000;

impl Engine {
    /// Removes the volumes of a session that has ended. Its containers are gone already, and it has left its network.
    ///
    /// If the engine does not answer, the session is remembered, and what it left is removed when the engine does.
    pub(crate) async fn end_session(&self, session: &SessionId) {
        if self.address.is_none() {
            return;
        }
        // An engine may never have been needed, and may hang: that is not to hold up the end of a session.
        match tokio::time::timeout(CONNECT_MAX, self.docker()).await {
            Ok(Ok(_)) => {
                // What fails is remembered.
                let _ = self.clear(session).await;
            }
            Ok(Err(_)) | Err(_) => self.remember(session),
        }
    }

    /// Removes what an ended session left, or remembers the session.
    async fn clear(&self, session: &SessionId) -> Result<(), DockerError> {
        let filter = format!("{SESSION}={}", session.as_str());
        let cleared = self.remove(&filter, Extent::Session).await;
        if let Err(error) = &cleared {
            tracing::warn!(%error, "what a session's containers left was not removed; it will be tried again");
            self.remember(session);
        }
        cleared.map(drop).map_err(|error| self.plainly(error))
    }

    fn remember(&self, session: &SessionId) {
        let mut ended = self.ended();
        if ended.len() < ENDED_MAX {
            ended.insert(session.clone());
        } else if !ended.contains(session) {
            tracing::warn!(session.id = session.as_str(), "what a session's containers left stays with the engine");
        }
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, BTreeSet<SessionId>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to remove what a broker before this one left. Nobody waits for it but the first container: an engine that is
    /// slow to answer does not keep the broker from starting.
    pub(crate) fn sweep(self: &Arc<Self>) {
        if self.address.is_none() {
            return;
        }
        let (engine, stopping) = (self.clone(), self.tasks.stopping_token());
        drop(self.tasks.spawn(async move {
            tokio::select! {
                () = engine.swept() => {}
                () = stopping.cancelled() => {}
            }
        }));
    }

    /// Completes when what an earlier broker left has been removed, or could not be: then the next caller tries again.
    pub(super) async fn swept(&self) {
        // Why it could not is in the log. Whether the caller gets what it wants is for the engine to say.
        let _ = self.swept.get_or_try_init(|| self.clean_up_earlier()).await;
    }

    /// Removes what an earlier broker left. Containers of this one may run already, if it could not be done before.
    async fn clean_up_earlier(&self) -> Result<(), DockerError> {
        self.docker().await?;
        // A container that is being started may be about to use a network that is found here.
        let all = u32::try_from(AT_ONCE_MAX).unwrap_or(u32::MAX);
        let _none_starts = self.starts.acquire_many(all).await;
        self.clean_up(Extent::Earlier).await
    }

    /// Removes containers and networks of this data folder.
    async fn clean_up(&self, extent: Extent) -> Result<(), DockerError> {
        let removed = self.remove(&format!("{FOLDER}={}", self.folder), extent).await;
        match &removed {
            Ok(0) | Err(DockerError::Unreachable { .. } | DockerError::None) => {}
            Ok(containers) => tracing::info!(containers, "removed containers that were left running"),
            Err(error) => tracing::warn!(%error, "containers that were left were not removed"),
        }
        removed.map(drop)
    }

    /// Removes networks, and containers that are left, when the broker stops. Volumes stay: sessions go on.
    pub(crate) async fn close(&self) {
        let _ = tokio::time::timeout(GONE_MAX, self.networks.none_in_the_making()).await;
        if self.connection.get().is_some() && self.clean_up(Extent::Folder).await.is_ok() {
            self.clear_ended().await;
        }
    }

    /// Removes a container, whatever state it is in. One that is gone already is fine. Says whether something else is about
    /// to remove it.
    pub(super) async fn discard(&self, id: &str) -> bool {
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let removed = match self.docker().await {
            Ok(docker) => docker.remove_container(id, Some(options)).await,
            Err(_) => return false,
        };
        match removed {
            Ok(()) | Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => false,
            Err(ApiError::DockerResponseServerError { status_code: 409, .. }) => true,
            Err(error) => {
                tracing::warn!(%error, container.id = id, "a container was not removed; it will be tried again");
                self.undone().push(id.to_owned());
                false
            }
        }
    }

    /// Removes a container. Its place in its network is free afterwards.
    async fn discard_wholly(&self, id: &str) {
        if self.discard(id).await {
            self.gone(id).await;
        }
    }

    /// Waits until a container that is being removed is gone, but not for ever.
    async fn gone(&self, id: &str) {
        let Ok(docker) = self.docker().await else { return };
        let options = WaitContainerOptions { condition: "removed".to_owned() };
        let mut removed = docker.wait_container(id, Some(options));
        // An error is how it ended, or that it is gone already.
        let _ = tokio::time::timeout(GONE_MAX, removed.next()).await;
    }

    /// Removes what could not be removed before.
    pub(super) async fn discard_undone(&self) {
        let undone = std::mem::take(&mut *self.undone());
        futures_util::future::join_all(undone.iter().map(|id| self.discard(id))).await;
        let any = !self.ended().is_empty() || self.any_undone_network();
        if any && self.docker().await.is_ok() && self.may_clear_again() {
            self.clear_ended().await;
            self.remove_undone_networks().await;
        }
    }

    /// What cannot be removed, because something else uses it, is not to slow every container down.
    fn may_clear_again(&self) -> bool {
        let mut cleared = self.cleared.lock().unwrap_or_else(PoisonError::into_inner);
        let may = cleared.is_none_or(|at| at.elapsed() >= CLEAR_EVERY);
        if may {
            *cleared = Some(Instant::now());
        }
        may
    }

    /// Removes what sessions left that have ended, until the engine does not answer. One that cannot be cleared is not in
    /// the way of the others.
    async fn clear_ended(&self) {
        let mut ended = std::mem::take(&mut *self.ended());
        while let Some(session) = ended.pop_first() {
            if let Err(DockerError::Unreachable { .. } | DockerError::None) = self.clear(&session).await {
                break;
            }
        }
        self.ended().append(&mut ended);
    }

    pub(super) fn undone(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.undone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what has a label. Says how many containers that were.
    async fn remove(&self, label: &str, extent: Extent) -> Result<usize, DockerError> {
        let docker = self.docker().await?;
        let filters = || {
            let labels = vec![format!("{FOLDER}={}", self.folder), label.to_owned()];
            Some(HashMap::from([("label".to_owned(), labels)]))
        };
        let options = ListContainersOptions { all: true, filters: filters(), ..Default::default() };
        let mut containers = docker.list_containers(Some(options)).await.map_err(failed("list containers"))?;
        containers.retain(|container| extent.covers(container.labels.as_ref(), &self.run));
        let ids: Vec<String> = containers.iter().filter_map(|container| container.id.clone()).collect();
        for some in ids.chunks(AT_ONCE_MAX) {
            futures_util::future::join_all(some.iter().map(|id| self.discard_wholly(id))).await;
        }
        match extent {
            Extent::Earlier | Extent::Folder => self.remove_networks(filters(), extent).await?,
            Extent::Session => self.remove_volumes(filters()).await?,
        }
        Ok(ids.len())
    }

    /// Removes networks. Why one could not be removed is in the log.
    async fn remove_networks(&self, filters: Filters, extent: Extent) -> Result<(), DockerError> {
        let docker = self.docker().await?;
        let listed = docker.list_networks(Some(ListNetworksOptions { filters })).await;
        let mut networks = listed.map_err(failed("list networks"))?;
        networks.retain(|network| extent.covers(network.labels.as_ref(), &self.run));
        for network in networks.into_iter().filter_map(|network| network.name) {
            let _ = self.remove_network(&network).await;
        }
        Ok(())
    }

    /// Removes volumes. One that cannot be, for as long as a container that was removed is still going, is not in the way
    /// of the others.
    async fn remove_volumes(&self, filters: Filters) -> Result<(), DockerError> {
        let docker = self.docker().await?;
        let found = docker.list_volumes(Some(ListVolumesOptions { filters })).await.map_err(failed("list volumes"))?;
        let mut kept = Ok(());
        for volume in found.volumes.unwrap_or_default() {
            match docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await {
                Ok(()) | Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(error) => kept = Err(failed("remove a volume")(error)),
            }
        }
        kept
    }
}

/// What the engine is asked for.
type Filters = Option<HashMap<String, Vec<String>>>;

/// How much is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Containers and networks that an earlier broker made.
    Earlier,
    /// Containers and networks.
    Folder,
    /// Containers and volumes.
    Session,
}

impl Extent {
    /// Whether it covers what has these labels, when this broker's run is `run`.
    fn covers(self, labels: Option<&HashMap<String, String>>, run: &str) -> bool {
        self != Self::Earlier || labels.and_then(|labels| labels.get(RUN)).is_none_or(|made_by| made_by != run)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::extract::State;
    use serde_json::json;

    use super::*;
    use crate::{config::ContainerSettings, lifecycle::Tasks};

    #[tokio::test]
    async fn what_an_engine_that_does_not_answer_keeps_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix://{}", folder.path().join("engine.sock").display());
        let settings = ContainerSettings { engine: Some(address), ..ContainerSettings::default() };
        let (tasks, _crashes) = Tasks::new();
        let engine = Engine::new(settings, ("folder", folder.path()), Duration::from_secs(1), &tasks);
        engine.swept().await;
        assert!(engine.swept.get().is_none());
        let session = SessionId::random();
        engine.end_session(&session).await;
        engine.discard_undone().await;
        assert!(engine.ended().contains(&session));
    }

    /// An engine with one volume, which is in use at first.
    async fn engine_of_one_session(
        State(asked): State<Arc<AtomicUsize>>,
        method: http::Method,
        uri: http::Uri,
    ) -> (http::StatusCode, axum::Json<serde_json::Value>) {
        let path = uri.path();
        let answer = match path.rsplit('/').next().unwrap_or_default() {
            "version" => json!({"ApiVersion": "1.44", "Version": "1"}),
            "volumes" => {
                let volume = json!({"Name": "notes", "Driver": "local", "Mountpoint": "", "Labels": {}, "Scope": "local", "Options": {}});
                json!({"Volumes": [volume], "Warnings": []})
            }
            "notes" if method == http::Method::DELETE => {
                if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                    return (http::StatusCode::CONFLICT, axum::Json(json!({"message": "volume is in use"})));
                }
                return (http::StatusCode::NO_CONTENT, axum::Json(json!({})));
            }
            _ => json!([]),
        };
        (http::StatusCode::OK, axum::Json(answer))
    }

    #[tokio::test]
    async fn what_was_in_use_is_removed_later() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let (tasks, _crashes) = Tasks::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let times = |asked: &AtomicUsize| asked.load(Ordering::SeqCst);
        let routes = axum::Router::new().fallback(engine_of_one_session).with_state(asked.clone());
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        drop(tasks.spawn(async move { axum::serve(listener, routes).await }));
        let engine = Some(format!("unix://{}", socket.display()));
        let settings = ContainerSettings { engine, ..ContainerSettings::default() };
        let engine = Engine::new(settings, ("folder", folder.path()), Duration::from_secs(1), &tasks);
        let session = SessionId::random();
        engine.end_session(&session).await;
        assert_eq!(times(&asked), 1);
        assert!(engine.ended().contains(&session), "what is left is not forgotten");
        engine.discard_undone().await;
        assert_eq!(times(&asked), 2);
        assert!(engine.ended().is_empty());
        engine.remember(&session);
        engine.discard_undone().await;
        assert_eq!(times(&asked), 2, "not again at once");
    }

    #[test]
    fn a_late_sweep_spares_what_this_broker_made() {
        let labels = |run: &str| HashMap::from([(RUN.to_owned(), run.to_owned())]);
        assert!(!Extent::Earlier.covers(Some(&labels("this")), "this"));
        assert!(Extent::Earlier.covers(Some(&labels("another")), "this"));
        assert!(Extent::Earlier.covers(None, "this"));
        assert!(Extent::Folder.covers(Some(&labels("this")), "this"));
    }
}
