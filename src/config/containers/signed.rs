//! Whose signature images need.

use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use data_encoding::BASE64;
use serde::Deserialize;

use crate::catalog::policy;

/// A file longer than this holds no public key.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Images that are run only if one of these keys has signed them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedImages {
    /// Names without tags; `*` stands for any text, and a name without a registry is Docker Hub's.
    images: Vec<String>,
    /// Files with public keys as `cosign generate-key-pair` writes them: ECDSA P-256, in PEM.
    keys: Vec<PathBuf>,
}

impl SignedImages {
    /// Whether it is about `image`, whose name has its registry (`docker.io/mcp/time`).
    #[must_use]
    pub fn is_about(&self, image: &str) -> bool {
        self.images.iter().any(|pattern| policy::fits(&with_registry(pattern), image))
    }

    /// The keys, one of which has to have signed.
    ///
    /// # Errors
    ///
    /// What is wrong with which of them.
    pub fn keys(&self) -> Result<Vec<ParsedPublicKey>, String> {
        self.keys.iter().map(|path| read(path).map_err(|problem| format!("{}: {problem}", path.display()))).collect()
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.images.is_empty() || self.keys.is_empty() {
            problems.push("containers.signed: each of them needs images and keys".to_owned());
        }
        problems.extend(self.keys().err().map(|problem| format!("containers.signed: {problem}")));
        problems
    }
}

/// Where a registry is left out, Docker Hub is meant.
fn with_registry(pattern: &str) -> String {
    match pattern.split_once('/') {
        Some((first, _)) if first.contains(['.', ':', '*']) || first == "localhost" => pattern.to_owned(),
        Some(_) => format!("docker.io/{pattern}"),
        None if pattern.starts_with('*') => pattern.to_owned(),
        None => format!("docker.io/library/{pattern}"),
    }
}

fn read(path: &Path) -> Result<ParsedPublicKey, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > KEY_BYTES_MAX {
        return Err("it is too long for a public key".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    parse(&text).ok_or_else(|| "it is no ECDSA P-256 public key in PEM, as cosign writes them".to_owned())
}

fn parse(pem: &str) -> Option<ParsedPublicKey> {
    let (_, rest) = pem.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    let body: String = body.split_whitespace().collect();
    ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, BASE64.decode(body.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_registry_is_docker_hubs() {
        let about = |pattern: &str, image: &str| {
            SignedImages { images: vec![pattern.to_owned()], keys: Vec::new() }.is_about(image)
        };
        assert!(about("mcp/*", "docker.io/mcp/time"));
        assert!(!about("mcp/*", "ghcr.io/mcp/time"));
        assert!(about("time", "docker.io/library/time"));
        assert!(about("ghcr.io/acme/*", "ghcr.io/acme/a/b"));
        assert!(about("*", "ghcr.io/acme/a"));
        assert!(about("localhost:5000/*", "localhost:5000/a"));
    }

    #[test]
    fn what_is_no_key_is_said_when_settings_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pub");
        std::fs::write(&path, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").unwrap();
        let problems = |keys: Vec<PathBuf>| SignedImages { images: vec!["mcp/*".to_owned()], keys }.problems();
        assert!(problems(vec![path])[0].contains("no ECDSA P-256 public key"));
        assert!(problems(vec![folder.path().join("absent")])[0].contains("absent"));
        assert_eq!(problems(Vec::new()).len(), 1);
    }
}
