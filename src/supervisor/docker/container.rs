//! One container: made, attached to, started, stopped, removed.

use std::{pin::Pin, sync::Arc, time::Duration};

use bollard::{
    Docker,
    container::LogOutput,
    errors::Error as ApiError,
    models::{
        ContainerCreateBody, ContainerCreateResponse, ContainerState, HostConfig, Mount, MountType, RestartPolicy,
        RestartPolicyNameEnum,
    },
    query_parameters::{
        AttachContainerOptions, CreateContainerOptions, InspectContainerOptions, StartContainerOptions,
        StopContainerOptions, WaitContainerOptions,
    },
};
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncWriteExt as _, SimplexStream, WriteHalf};
use tokio_util::either::Either;

use super::{
    DockerError, Engine, Owner, SERVER, failed,
    gate::{Gate, OpenGate},
    mounts::{self, Source},
    network::NetworkUse,
};
use crate::{
    config::ContainerBounds,
    supervisor::{
        backing::Streams,
        launch::ContainerLaunch,
        tail::{Feed, Tail},
    },
};

/// How a process ends that the kernel, or `docker kill`, has ended: 128 and the signal's number.
const KILLED: i64 = 137;

/// How often an engine is asked again when it leaves off waiting for a container that still runs, and how long after.
/// An engine may say nothing at all until the container ends, so each time may last as long as a request may.
const WAITS_MAX: usize = 600;
const WAIT_AGAIN: Duration = Duration::from_secs(1);

/// Output that may wait to be read.
const OUTPUT_BYTES: usize = 64 << 10;

/// A container that was started. Dropping it removes it.
pub(crate) struct Container {
    engine: Arc<Engine>,
    docker: Docker,
    id: String,
    memory_bytes: u64,
    tail: Tail,
    network: Option<NetworkUse>,
    gate: Option<OpenGate>,
    removed: bool,
}

/// What a container is connected to.
enum Net {
    None,
    /// The network that its session's containers share.
    Session(NetworkUse),
    Gate(Gate),
}

impl Net {
    /// Completes when there is what a container is to be connected to.
    async fn made(&self) -> Result<(), DockerError> {
        match self {
            Self::Session(network) => network.made().await,
            Self::None | Self::Gate(_) => Ok(()),
        }
    }
}

/// How a container ended.
pub(crate) struct End {
    pub(crate) success: bool,
    pub(crate) how: String,
}

impl End {
    fn unknown(why: &str) -> Self {
        Self { success: false, how: format!("an unknown status: {why}") }
    }

    /// Reads the state of a container that does not run any more.
    fn of(state: ContainerState, memory_bytes: u64) -> Self {
        let Some(code) = state.exit_code else { return Self::unknown("the engine does not say how it ended") };
        let why = if state.oom_killed == Some(true) {
            let mib = memory_bytes >> 20;
            format!(": the kernel ended it for using more than {mib} MiB (containers.memory_bytes)")
        } else if code == KILLED {
            ": it was killed".to_owned()
        } else {
            state.error.filter(|error| !error.is_empty()).map(|error| format!(": {error}")).unwrap_or_default()
        };
        Self { success: code == 0, how: format!("code {code}{why}") }
    }
}

impl Engine {
    /// Starts a container from an image that is here.
    pub(super) async fn run(
        self: &Arc<Self>,
        launch: &ContainerLaunch,
        owner: &Owner,
        tail: Tail,
    ) -> Result<(Container, Streams), DockerError> {
        let _turn = self.starts.acquire().await;
        let docker = self.docker().await?;
        let bounds = self.settings.bounds(&owner.server, launch.memory_bytes, launch.nano_cpus);
        let net = self.net(launch, owner)?;
        let body = self.body(launch, owner, &bounds, &net).await?;
        // Docker wants the network when the container starts, so both are made at once. Podman wants it before, and is
        // asked again.
        let (network, made) = tokio::join!(net.made(), make(docker, &body));
        let made = match made {
            Err(ApiError::DockerResponseServerError { .. }) if network.is_ok() && matches!(net, Net::Session(_)) => {
                make(docker, &body).await
            }
            made => made,
        };
        let (on_network, gate) = match net {
            Net::None => (None, None),
            Net::Session(network) => (Some(network), None),
            Net::Gate(gate) => (None, Some(gate)),
        };
        let mut container = Container {
            engine: self.clone(),
            docker: docker.clone(),
            id: made.map_err(failed("make the container"))?.id,
            memory_bytes: bounds.memory_bytes,
            tail: tail.clone(),
            network: on_network,
            gate: None,
            removed: false,
        };
        network?;
        let options =
            AttachContainerOptions { stream: true, stdin: true, stdout: true, stderr: true, ..Default::default() };
        let attached =
            docker.attach_container(&container.id, Some(options)).await.map_err(failed("attach to the container"))?;
        docker
            .start_container(&container.id, None::<StartContainerOptions>)
            .await
            .map_err(failed("start the container"))?;
        if let Some(gate) = gate {
            container.gate = Some(gate.open(container.namespace().await?, &tail, &self.tasks).await?);
        }
        let (output, into) = tokio::io::simplex(OUTPUT_BYTES);
        drop(self.tasks.spawn(split(attached.output, into, tail)));
        Ok((container, (Either::Right(output), Box::new(attached.input))))
    }

    async fn body(
        &self,
        launch: &ContainerLaunch,
        owner: &Owner,
        bounds: &ContainerBounds,
        net: &Net,
    ) -> Result<ContainerCreateBody, DockerError> {
        let none = || "none".to_owned();
        let (network_mode, hosts) = match net {
            Net::None => (none(), launch.extra_hosts.clone()),
            Net::Session(network) => (network.name().to_owned(), launch.extra_hosts.clone()),
            Net::Gate(gate) => (none(), gate.hosts(&launch.extra_hosts)),
        };
        let mut labels = self.labels(owner.session.as_ref());
        labels.insert(SERVER.to_owned(), owner.server.to_string());
        let environment = launch.environment.iter().map(|(name, value)| format!("{name}={}", value.reveal())).collect();
        Ok(ContainerCreateBody {
            image: Some(launch.image.clone()),
            entrypoint: launch.entrypoint.clone(),
            cmd: launch.command.clone(),
            working_dir: launch.working_dir.clone(),
            env: Some(environment),
            user: launch.user.clone(),
            labels: Some(labels),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            stdin_once: Some(true),
            tty: Some(false),
            host_config: Some(HostConfig {
                init: Some(true),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                cap_drop: Some(vec!["ALL".to_owned()]),
                nano_cpus: Some(bounds.nano_cpus()),
                memory: Some(i64::try_from(bounds.memory_bytes).unwrap_or(i64::MAX)),
                memory_swap: Some(i64::try_from(bounds.memory_bytes).unwrap_or(i64::MAX)),
                pids_limit: Some(i64::from(bounds.pids_max)),
                network_mode: Some(network_mode),
                mounts: Some(self.mounts(launch, owner).await?),
                extra_hosts: Some(hosts),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::NO),
                    maximum_retry_count: None,
                }),
                log_config: Some(bollard::models::HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    /// What it is to be connected to: nothing, where it is to reach nothing.
    fn net(self: &Arc<Self>, launch: &ContainerLaunch, owner: &Owner) -> Result<Net, DockerError> {
        if launch.disable_network || (self.settings.block_network && launch.allow_hosts.is_empty()) {
            return Ok(Net::None);
        }
        if self.settings.block_network {
            return Ok(Net::Gate(Gate::new(&launch.allow_hosts, &launch.extra_hosts)?));
        }
        Ok(Net::Session(self.network(owner.session.as_ref())))
    }

    async fn mounts(&self, launch: &ContainerLaunch, owner: &Owner) -> Result<Vec<Mount>, DockerError> {
        let mut mounts = Vec::new();
        for bind in &launch.binds {
            mounts::agreed(&bind.source, &self.data_folder)?;
            mounts.push(Mount {
                typ: Some(MountType::BIND),
                source: Some(bind.source.display().to_string()),
                target: Some(bind.target.clone()),
                read_only: Some(bind.read_only),
                ..Default::default()
            });
        }
        for spec in &launch.volumes {
            let (allowed, writable) = (&self.settings.allowed_paths, &self.settings.writable_paths);
            let (source, target) = mounts::mount(spec, allowed, writable, &self.data_folder)?;
            mounts.push(match source {
                Source::Folder { path, writable } => Mount {
                    typ: Some(MountType::BIND),
                    source: Some(path.display().to_string()),
                    target: Some(target),
                    read_only: Some(!writable),
                    ..Default::default()
                },
                Source::Volume { name, read_only } => Mount {
                    typ: Some(MountType::VOLUME),
                    source: Some(self.volume(owner.session.as_ref(), &name).await?),
                    target: Some(target),
                    read_only: Some(read_only),
                    ..Default::default()
                },
            });
        }
        Ok(mounts)
    }
}

async fn make(docker: &Docker, body: &ContainerCreateBody) -> Result<ContainerCreateResponse, ApiError> {
    docker.create_container(None::<CreateContainerOptions>, body.clone()).await
}

/// Takes apart what the engine sends as one stream: output to who reads it, errors to the tail.
async fn split(
    mut frames: Pin<Box<dyn Stream<Item = Result<LogOutput, ApiError>> + Send>>,
    mut output: WriteHalf<SimplexStream>,
    tail: Tail,
) {
    let mut errors = Feed::to(tail);
    while let Some(Ok(frame)) = frames.next().await {
        match frame {
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                if output.write_all(&message).await.is_err() {
                    break;
                }
            }
            LogOutput::StdErr { message } => errors.take(&message),
            LogOutput::StdIn { .. } => {}
        }
    }
    let _ = output.shutdown().await;
}

impl Container {
    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The file that is its network namespace.
    async fn namespace(&self) -> Result<String, DockerError> {
        let inspected = self.docker.inspect_container(&self.id, None::<InspectContainerOptions>).await;
        let settings = inspected.map_err(failed("look at the container"))?.network_settings;
        Ok(settings.and_then(|settings| settings.sandbox_key).unwrap_or_default())
    }

    /// Waits until it has ended, for at most `limit`, and says how.
    pub(crate) async fn exited(&mut self, limit: Duration) -> Option<String> {
        tokio::time::timeout(limit, self.ended()).await.ok().map(|end| end.how)
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> End {
        for _ in 0..WAITS_MAX {
            let mut waiting = self.docker.wait_container(&self.id, None::<WaitContainerOptions>);
            // A code other than 0 is an error to the library; what is of interest is asked for next.
            let _ = waiting.next().await;
            let inspected = self.docker.inspect_container(&self.id, None::<InspectContainerOptions>).await;
            let Some(state) = inspected.ok().and_then(|container| container.state) else {
                return End::unknown("the container is gone, or its engine is");
            };
            if state.running != Some(true) {
                return End::of(state, self.memory_bytes);
            }
            tokio::time::sleep(WAIT_AGAIN).await;
        }
        End::unknown("the container still runs, and its engine does not wait for it")
    }

    /// Ends and removes it now.
    pub(crate) async fn kill(mut self) {
        self.engine.discard(&self.id).await;
        self.removed = true;
    }

    /// Ends it, whose input is closed already, and removes it. Says how it ended.
    pub(crate) async fn stop(mut self, grace: Duration) -> String {
        let mut how = self.exited(grace).await;
        if how.is_none() {
            let seconds = i32::try_from(grace.as_secs().max(1)).unwrap_or(i32::MAX);
            let options = StopContainerOptions { signal: None, t: Some(seconds) };
            let _ = self.docker.stop_container(&self.id, Some(options)).await;
            how = self.exited(grace).await;
        }
        self.engine.discard(&self.id).await;
        self.removed = true;
        how.unwrap_or_else(|| "an unknown status".to_owned())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.removed {
            let (engine, id, network) = (self.engine.clone(), std::mem::take(&mut self.id), self.network.take());
            drop(self.engine.tasks.spawn(async move {
                engine.discard(&id).await;
                drop(network);
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_succeeded_only_if_the_engine_says_so() {
        let end = |exit_code, oom_killed| {
            End::of(ContainerState { exit_code, oom_killed, ..ContainerState::default() }, 64 << 20)
        };
        let good = end(Some(0), None);
        assert!(good.success);
        assert_eq!(good.how, "code 0");
        assert!(!end(None, None).success);
        assert_eq!(end(Some(KILLED), Some(false)).how, "code 137: it was killed");
        assert!(end(Some(KILLED), Some(true)).how.contains("more than 64 MiB"));
    }
}
