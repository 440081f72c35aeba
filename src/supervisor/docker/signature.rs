//! Signatures of images: where the operator has named keys, an image runs only if one of them has signed it.
//!
//! A signature is one of cosign's: in the image's repository, under the tag `sha256-<digest>.sig`, is a manifest whose
//! layers are signed statements about that digest. What is checked is the digest that the engine says the image was pulled
//! by; what is run then is the image's own id, which no tag can be moved from. Whether a signature is in a transparency log
//! is not asked: the keys are the operator's choice.

use std::collections::BTreeSet;

use aws_lc_rs::signature::ParsedPublicKey;
use data_encoding::BASE64;
use futures_util::TryStreamExt as _;
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    manifest::{OciDescriptor, OciImageManifest},
    secrets::RegistryAuth,
};
use serde_json::Value;

use super::{DockerError, Engine, failed};
use crate::supervisor::upstream::chain;

const STATEMENT: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// Signatures of one image that are looked at.
const SIGNATURES_MAX: usize = 32;

/// A statement names an image and a digest: it is short.
const STATEMENT_BYTES_MAX: usize = 64 << 10;

/// An image is not known to be signed as the operator wants it.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("it was not pulled from its registry, so nothing says who made it")]
    Local,
    #[error("it has no signature")]
    None,
    #[error("none of its signatures is by a key of the operator's")]
    Others,
    #[error("its signatures cannot be had: {0}")]
    Unreadable(String),
    #[error("a key cannot be read: {0}")]
    Key(String),
}

impl Engine {
    /// What is to be run for `image`, which is here: itself, or, where it has to be signed, exactly what was signed.
    pub(super) async fn signed(&self, image: &str) -> Result<String, DockerError> {
        let refused = |source| DockerError::Signature { image: image.to_owned(), source };
        // What is no reference to us cannot be one of the images that are to be signed by name; with `*` it is refused.
        let parsed = Reference::try_from(image);
        let name = parsed.as_ref().map_or_else(|_| image.to_owned(), name_of);
        let rules: Vec<_> = self.settings.signed.iter().filter(|rule| rule.is_about(&name)).collect();
        if rules.is_empty() {
            return Ok(image.to_owned());
        }
        let found = self.docker().await?.inspect_image(image).await.map_err(failed("look for the image"))?;
        let id = found.id.ok_or_else(|| refused(SignatureError::Local))?;
        if self.known_signed().contains(&(name.clone(), id.clone())) {
            return Ok(id);
        }
        let mut keys = Vec::new();
        for rule in rules {
            keys.extend(rule.keys().map_err(|problem| refused(SignatureError::Key(problem)))?);
        }
        let pulled = found.repo_digests.unwrap_or_default();
        let pulled = pulled.iter().filter_map(|digest| Reference::try_from(digest.as_str()).ok());
        let mut outcome = Err(SignatureError::Local);
        for pulled in pulled.filter(|pulled| name_of(pulled) == name) {
            outcome = check(&pulled, &keys).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome.map_err(refused)?;
        tracing::info!(image, id, "the image is signed");
        self.known_signed().insert((name, id.clone()));
        Ok(id)
    }

    fn known_signed(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, String)>> {
        self.known_signed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Registry and repository.
fn name_of(image: &Reference) -> String {
    format!("{}/{}", image.registry(), image.repository())
}

/// Looks for a signature of an image's digest by one of the keys.
async fn check(image: &Reference, keys: &[ParsedPublicKey]) -> Result<(), SignatureError> {
    let digest = image.digest().ok_or(SignatureError::Local)?;
    let (registry, repository) = (image.registry().to_owned(), image.repository().to_owned());
    let at = Reference::with_tag(registry, repository, format!("{}.sig", digest.replace(':', "-")));
    let client = client(image.registry());
    let manifest = match client.pull_image_manifest(&at, &RegistryAuth::Anonymous).await {
        Ok((manifest, _)) => manifest,
        Err(error) if is_absent(&error) => return Err(SignatureError::None),
        Err(error) => return Err(SignatureError::Unreadable(chain(&error))),
    };
    let statements = statements(&manifest);
    if statements.is_empty() {
        return Err(SignatureError::None);
    }
    for (layer, signature) in statements {
        let statement = fetch(&client, &at, layer).await?;
        if is_about(&statement, digest) && keys.iter().any(|key| key.verify_sig(&statement, &signature).is_ok()) {
            return Ok(());
        }
    }
    Err(SignatureError::Others)
}

fn statements(manifest: &OciImageManifest) -> Vec<(&OciDescriptor, Vec<u8>)> {
    let signature = |layer: &OciDescriptor| {
        let text = layer.annotations.as_ref()?.get(SIGNATURE)?;
        BASE64.decode(text.as_bytes()).ok()
    };
    let layers = manifest.layers.iter().filter(|layer| layer.media_type == STATEMENT);
    layers.filter_map(|layer| Some((layer, signature(layer)?))).take(SIGNATURES_MAX).collect()
}

async fn fetch(client: &Client, at: &Reference, layer: &OciDescriptor) -> Result<Vec<u8>, SignatureError> {
    let unreadable = |problem: String| SignatureError::Unreadable(problem);
    let mut stream = client.pull_blob_stream(at, layer).await.map_err(|error| unreadable(chain(&error)))?;
    let mut statement = Vec::new();
    while let Some(bytes) = stream.try_next().await.map_err(|error| unreadable(error.to_string()))? {
        statement.extend_from_slice(&bytes);
        if statement.len() > STATEMENT_BYTES_MAX {
            return Err(unreadable("one of them is too long".to_owned()));
        }
    }
    Ok(statement)
}

/// Whether a statement is about this digest.
fn is_about(statement: &[u8], digest: &str) -> bool {
    let Ok(statement) = serde_json::from_slice::<Value>(statement) else { return false };
    let critical = &statement["critical"];
    critical["image"]["docker-manifest-digest"] == digest && critical["type"] == "cosign container image signature"
}

fn is_absent(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) | OciDistributionError::ServerError { code: 404, .. } => {
            true
        }
        OciDistributionError::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .any(|error| matches!(error.code, OciErrorCode::ManifestUnknown | OciErrorCode::NotFound)),
        _ => false,
    }
}

/// A client for one registry. As for engines, one on this machine needs no TLS.
fn client(registry: &str) -> Client {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let is_here = host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    let protocol = if is_here { ClientProtocol::Http } else { ClientProtocol::Https };
    Client::new(ClientConfig { protocol, ..ClientConfig::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_it_is_written() {
        let name = |image: &str| name_of(&Reference::try_from(image).unwrap());
        for image in ["mcp/time", "docker.io/mcp/time:1", "index.docker.io/mcp/time"] {
            assert_eq!(name(image), "docker.io/mcp/time", "{image}");
        }
        assert_eq!(name("time"), "docker.io/library/time");
        assert_eq!(name("localhost:5000/a:b"), "localhost:5000/a");
    }

    #[test]
    fn a_statement_is_about_one_digest() {
        let statement = |kind: &str, digest: &str| {
            let image = serde_json::json!({"docker-manifest-digest": digest});
            serde_json::json!({"critical": {"type": kind, "image": image}}).to_string().into_bytes()
        };
        let kind = "cosign container image signature";
        assert!(is_about(&statement(kind, "sha256:1"), "sha256:1"));
        assert!(!is_about(&statement(kind, "sha256:2"), "sha256:1"));
        assert!(!is_about(&statement("attestation", "sha256:1"), "sha256:1"));
        assert!(!is_about(b"[", "sha256:1"));
    }
}
