//! Images that have to be signed.

use std::{collections::BTreeMap, path::Path};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use data_encoding::{BASE64, HEXLOWER};
use mcp_broker::config::SignedImages;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::engine::{all_is_gone, docker, engine};
use crate::support::{Era, FixtureCatalog, TestBroker};

struct Signer(EcdsaKeyPair);

impl Signer {
    /// With its public key in a file, as cosign writes it.
    fn new(public: &Path) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let pem = BASE64.encode(der.as_ref());
        std::fs::write(public, format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n")).unwrap();
        Self(pair)
    }

    /// Puts a signed statement about `about` where signatures of `digest` are looked for, as cosign does.
    async fn sign(&self, registry: &str, repository: &str, digest: &str, about: &str) {
        let statement = json!({
            "critical": {
                "identity": {"docker-reference": format!("{registry}/{repository}")},
                "image": {"docker-manifest-digest": about},
                "type": "cosign container image signature",
            },
            "optional": null,
        });
        let statement = statement.to_string();
        let signature = self.0.sign(&SystemRandom::new(), statement.as_bytes()).unwrap();
        let at = format!("http://{registry}/v2/{repository}");
        let config = put_blob(&at, "{}").await;
        let annotations = BTreeMap::from([("dev.cosignproject.cosign/signature", BASE64.encode(signature.as_ref()))]);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": put_blob(&at, &statement).await,
                "size": statement.len(),
                "annotations": annotations,
            }],
        });
        let put = reqwest::Client::new()
            .put(format!("{at}/manifests/{}.sig", digest.replace(':', "-")))
            .header("content-type", "application/vnd.oci.image.manifest.v1+json")
            .body(manifest.to_string());
        assert!(put.send().await.unwrap().status().is_success());
    }
}

async fn put_blob(repository: &str, text: &str) -> String {
    let digest = format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(text)));
    let client = reqwest::Client::new();
    let begun = client.post(format!("{repository}/blobs/uploads/")).send().await.unwrap();
    let mut at = reqwest::Url::parse(begun.headers()["location"].to_str().unwrap()).unwrap();
    at.query_pairs_mut().append_pair("digest", &digest);
    assert!(client.put(at).body(text.to_owned()).send().await.unwrap().status().is_success());
    digest
}

#[tokio::test]
async fn an_image_runs_only_if_a_key_of_the_operators_has_signed_it() {
    let Some(engine) = engine().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours.pub"), folder.path().join("theirs.pub"));
    let (our_key, their_key) = (Signer::new(&ours), Signer::new(&theirs));
    let registry = &engine.registry;
    let image = format!("{registry}/fixture:1");
    docker(&["pull", "--quiet", &image]);
    let pulled = docker(&["inspect", &image, "--format", "{{join .RepoDigests \" \"}}"]);
    let digest = pulled.split(' ').find_map(|pulled| pulled.strip_prefix(&format!("{registry}/fixture@"))).unwrap();
    let pinned = format!("{registry}/fixture@{digest}");
    docker(&["tag", &image, &format!("{registry}/local:1")]);

    let signed: SignedImages =
        serde_json::from_value(json!({"images": [format!("{registry}/*")], "keys": [ours]})).unwrap();
    let catalog = FixtureCatalog::new()
        .image("tagged", &image, "")
        .image("pinned", &pinned, "")
        .image("pinned-by-others", &pinned, "")
        .image("pinned-for-others", &pinned, "")
        .image("local", &format!("{registry}/local:1"), "")
        .image("local-again", &format!("{registry}/local:1"), "")
        .image("free", super::IMAGE, "");
    let broker = TestBroker::with(catalog).containers(|settings| settings.signed = vec![signed]).start().await;
    let client = broker.connect(Era::Legacy).await;
    let refusal = async |name: &str| {
        let outcome = client.call("mcp-add", json!({"name": name})).await;
        assert!(!outcome.is_ok(), "{name}: {outcome}");
        outcome.to_string()
    };
    let said = refusal("tagged").await;
    assert!(said.contains("has to be signed") && said.contains("it has no signature"), "{said}");
    let said = refusal("local").await;
    assert!(said.contains("it was not pulled from its registry"), "{said}");
    client.add("free").await;

    their_key.sign(registry, "fixture", digest, digest).await;
    let said = refusal("pinned-by-others").await;
    assert!(said.contains("none of its signatures is by a key of the operator's"), "{said}");
    let other = format!("sha256:{}", "0".repeat(64));
    our_key.sign(registry, "fixture", digest, &other).await;
    let said = refusal("pinned-for-others").await;
    assert!(said.contains("none of its signatures"), "a signature of something else is none: {said}");

    our_key.sign(registry, "fixture", digest, digest).await;
    for name in ["tagged", "pinned"] {
        client.add(name).await;
        client.ok(&format!("{name}__echo"), json!({"text": name})).await;
    }
    let said = refusal("local-again").await;
    assert!(said.contains("it was not pulled from its registry"), "another name is another image: {said}");
    broker.stop().await;
    docker(&["rmi", &format!("{registry}/local:1")]);
    all_is_gone();
}
