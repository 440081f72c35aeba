//! Images: here already, or pulled. However many sessions want one, it is pulled once.

use bollard::{errors::Error as ApiError, models::CreateImageInfo, query_parameters::CreateImageOptions};
use futures_util::StreamExt as _;
use rmcp::model::{NumberOrString, ProgressNotificationParam, ProgressToken};
use std::{borrow::Cow, collections::HashMap, sync::Arc};
use tokio::time::{Instant, timeout_at};

use super::{DockerError, Engine, failed};
use crate::{
    audit::{Kind, Outcome, Status, Subject},
    caller::{Link, Report},
    config::Pull,
    ids::Principal,
    supervisor::upstream::chain,
};

impl Engine {
    /// Has the image here by `deadline`. A pull's progress goes to `link`, in bytes of all layers.
    pub(super) async fn image(
        &self,
        image: &str,
        pull: Pull,
        link: &Link,
        deadline: Instant,
    ) -> Result<(), DockerError> {
        if pull != Pull::Always && self.in_time(image, timeout_at(deadline, self.has_image(image)).await)? {
            return Ok(());
        }
        if pull == Pull::Never {
            return Err(DockerError::PullNever { image: image.to_owned() });
        }
        let lock = self.pull_lock(image);
        let _pulling = self.in_time(image, timeout_at(deadline, lock.lock()).await.map(Ok))?;
        if pull == Pull::Missing && self.in_time(image, timeout_at(deadline, self.has_image(image)).await)? {
            return Ok(());
        }
        self.recorded(image, link, deadline).await
    }

    /// Pulls between the two events of a record. It is nobody's alone: whoever wants the image waits for the same pull.
    ///
    /// Only the pull itself is cut at `deadline`: the record is closed however it ends.
    async fn recorded(&self, image: &str, link: &Link, deadline: Instant) -> Result<(), DockerError> {
        let Some(audit) = &self.audit else {
            return self.in_time(image, timeout_at(deadline, self.pull(image, link)).await);
        };
        let subject = Subject {
            kind: Kind::Pull,
            parent: None,
            session: None,
            principal: &Principal::Local,
            client: None,
            server: None,
            name: image,
            trace: None,
        };
        let unrecorded = |source| DockerError::Unrecorded { image: image.to_owned(), source };
        let record = audit.open(&subject, None).await.map_err(unrecorded)?;
        let (status, pulled) = match timeout_at(deadline, self.pull(image, link)).await {
            Ok(Ok(())) => (Status::Success, Ok(())),
            Ok(Err(error)) => (Status::Error, Err(error)),
            Err(_) => (Status::Timeout, Err(self.late(image))),
        };
        let error = pulled.as_ref().err().map(|error| Cow::Owned(chain(error)));
        audit.close(record, Outcome::without_result(status, error)).await.map_err(unrecorded)?;
        pulled
    }

    async fn has_image(&self, image: &str) -> Result<bool, DockerError> {
        match self.docker().await?.inspect_image(image).await {
            Ok(found) => {
                self.check_platform(image, found.os.as_deref(), found.architecture.as_deref()).await?;
                Ok(true)
            }
            Err(ApiError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(source) => Err(DockerError::Api { what: "look for the image", source }),
        }
    }

    async fn check_platform(
        &self,
        image: &str,
        os: Option<&str>,
        architecture: Option<&str>,
    ) -> Result<(), DockerError> {
        let engine = self.docker().await?.version().await.map_err(failed("say what it runs"))?;
        let (Some(architecture), Some(engine_architecture)) = (architecture, engine.arch.as_deref()) else {
            return Ok(());
        };
        if architecture.is_empty() || architecture == engine_architecture {
            return Ok(());
        }
        Err(DockerError::Platform {
            image: image.to_owned(),
            image_platform: format!("{}/{architecture}", os.unwrap_or("linux")),
            platform: format!("{}/{engine_architecture}", engine.os.as_deref().unwrap_or("linux")),
        })
    }

    async fn pull(&self, image: &str, link: &Link) -> Result<(), DockerError> {
        tracing::info!(image, "pulling an image");
        let (from_image, tag) = reference(image);
        let options = CreateImageOptions { from_image: Some(from_image), tag, ..Default::default() };
        let mut events = self.docker().await?.create_image(Some(options), None, None);
        let mut layers = Layers::default();
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| refused(image, &error))?;
            if let Some(problem) = event.error_detail.as_ref().and_then(|detail| detail.message.clone()) {
                return Err(DockerError::Pull { image: image.to_owned(), problem });
            }
            if let Some(progress) = layers.note(&event, image) {
                link.report(Report::Progress(progress));
            }
        }
        match self.has_image(image).await? {
            true => Ok(()),
            false => Err(DockerError::Pull { image: image.to_owned(), problem: "it did not arrive".to_owned() }),
        }
    }
}

fn refused(image: &str, error: &ApiError) -> DockerError {
    let image = image.to_owned();
    match error {
        ApiError::DockerResponseServerError { status_code: 404 | 403 | 401, .. } => DockerError::NoImage { image },
        ApiError::DockerResponseServerError { message, .. } => DockerError::Pull { image, problem: message.clone() },
        ApiError::DockerStreamError { error } => {
            let unknown = ["not found", "manifest unknown", "denied"].iter().any(|word| error.contains(word));
            match unknown {
                true => DockerError::NoImage { image },
                false => DockerError::Pull { image, problem: error.clone() },
            }
        }
        other => DockerError::Pull { image, problem: other.to_string() },
    }
}

/// What the engine's API takes: name and tag apart. A digest stays with the name.
fn reference(image: &str) -> (String, Option<String>) {
    if image.contains('@') {
        return (image.to_owned(), None);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), Some(tag.to_owned())),
        _ => (image.to_owned(), Some("latest".to_owned())),
    }
}

/// How far each layer is.
#[derive(Default)]
struct Layers {
    layers: HashMap<String, (i64, i64)>,
    last: i64,
}

impl Layers {
    /// Takes notice of an event; what there is to be told, if it is news.
    fn note(&mut self, event: &CreateImageInfo, image: &str) -> Option<ProgressNotificationParam> {
        let (id, status) = (event.id.clone()?, event.status.as_deref()?);
        let detail = event.progress_detail.as_ref();
        let layer = self.layers.entry(id).or_default();
        match (status, detail.and_then(|detail| detail.current), detail.and_then(|detail| detail.total)) {
            ("Downloading", Some(current), Some(total)) => *layer = (current, total),
            ("Download complete" | "Pull complete", ..) => layer.0 = layer.1,
            _ => {}
        }
        let (current, total) =
            self.layers.values().fold((0, 0), |(current, total), layer| (current + layer.0, total + layer.1));
        // MCP wants progress to increase with each notification.
        if current <= self.last {
            return None;
        }
        self.last = current;
        let done = self.layers.values().filter(|(current, total)| *total > 0 && current == total).count();
        let message = format!("pulling {image}: {done} of {} layers", self.layers.len());
        #[expect(clippy::cast_precision_loss, reason = "bytes of an image")]
        Some(
            ProgressNotificationParam::new(ProgressToken(NumberOrString::String(Arc::from("pull"))), current as f64)
                .with_total(total as f64)
                .with_message(message),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_taken_apart() {
        let parts = |image| reference(image);
        assert_eq!(parts("mcp/time"), ("mcp/time".to_owned(), Some("latest".to_owned())));
        assert_eq!(parts("mcp/time:1.2"), ("mcp/time".to_owned(), Some("1.2".to_owned())));
        assert_eq!(parts("localhost:5000/a"), ("localhost:5000/a".to_owned(), Some("latest".to_owned())));
        assert_eq!(parts("localhost:5000/a:b"), ("localhost:5000/a".to_owned(), Some("b".to_owned())));
        let pinned = "mcp/time@sha256:0123";
        assert_eq!(parts(pinned), (pinned.to_owned(), None));
    }
}
