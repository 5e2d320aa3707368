//! Images and artifacts as tools write them: each is pulled, and its program found.

use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;
use windlass_oci::digest::Digest;

use crate::fake::{Asked, Fake, Image, ok};
use crate::{Node, component, plain};

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An archive of one file.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut archive = [&header, content].concat();
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

#[tokio::test]
async fn the_program_is_found_in_every_layout() {
    let wasm = component();
    let of_docker = br#"{"os":"wasi","architecture":"wasm","config":{"Entrypoint":["/app.wasm","-x"],"Env":["A=1"]}}"#;
    let for_linux = br#"{"os":"linux","architecture":"amd64","config":{"Cmd":["app.wasm"],"WorkingDir":"/opt"}}"#;
    let archive = tar("app.wasm", &wasm);
    let in_opt = tar("opt/app.wasm", &wasm);
    let artifact = |config, layer| Image::new((config, b"{}"), &[(layer, &wasm)]);
    let cases: Vec<(&str, Image)> = vec![
        ("CNCF artifact, wkg", Image::wasm(&wasm)),
        (
            "earlier Bytecode Alliance tools",
            artifact(
                "application/vnd.wasm.config.v1+json",
                "application/vnd.wasm.content.layer.v1+wasm",
            ),
        ),
        (
            "wasm-to-oci",
            artifact(
                "application/vnd.module.wasm.config.v1+json",
                "application/vnd.module.wasm.content.layer.v1+wasm",
            ),
        ),
        (
            "oras without types",
            artifact(
                "application/vnd.oci.empty.v1+json",
                "application/vnd.oci.image.layer.v1.tar",
            ),
        ),
        (
            "docker build for wasi/wasm",
            Image::new((OCI_CONFIG, of_docker), &[(TAR_GZIP, &gzip(&archive))]),
        ),
        (
            "the same with zstd",
            Image::new(
                (OCI_CONFIG, of_docker),
                &[(
                    "application/vnd.oci.image.layer.v1.tar+zstd",
                    &zstd(&archive),
                )],
            ),
        ),
        (
            "docker's own types",
            Image::new(
                ("application/vnd.docker.container.image.v1+json", of_docker),
                &[(
                    "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    &gzip(&archive),
                )],
            ),
        ),
        (
            "an image for Linux whose program is wasm",
            Image::new((OCI_CONFIG, for_linux), &[(TAR_GZIP, &gzip(&in_opt))]),
        ),
        (
            "a compressed layer",
            Image::new(
                ("application/vnd.wasm.config.v0+json", b"{}"),
                &[("application/wasm+gzip", &gzip(&wasm))],
            ),
        ),
    ];
    for (name, image) in cases {
        let fake = Fake::serve(move |asked, _| image.answer(asked)).await;
        let node = Node::new(&plain(&[fake.address])).await;
        let reference = format!("{}/a/b:v1", fake.address);
        let pulled = node.pull(&reference).await;
        let pulled = pulled.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(node.program(&pulled).await, wasm, "{name}");
        let found = node
            .puller
            .local(&reference.parse().unwrap())
            .await
            .unwrap();
        assert_eq!(found.unwrap().programs, pulled.programs, "{name}");
    }
}

#[tokio::test]
async fn an_index_is_followed_to_the_wasm_image() {
    let wasm = Image::wasm(&component());
    let linux = Image::new((OCI_CONFIG, b"{\"os\":\"linux\"}"), &[(TAR_GZIP, b"x")]);
    let describe = |image: &Image, platform: Value| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "platform": platform,
            "digest": Digest::sha256(&image.manifest), "size": image.manifest.len(),
        })
    };
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            describe(&linux, json!({"os": "linux", "architecture": "amd64"})),
            describe(&linux, json!({"os": "linux", "architecture": "arm64"})),
            describe(&wasm, json!({"os": "wasi", "architecture": "wasm"})),
        ],
    });
    let answer = move |asked: &Asked| -> Response {
        if asked.path.ends_with("/manifests/v1") {
            return ok(index.to_string());
        }
        let digest = Digest::sha256(&linux.manifest).to_string();
        match asked.path.ends_with(&digest) {
            true => ok(linux.manifest.clone()),
            false => wasm.answer(asked),
        }
    };
    let fake = Fake::serve(move |asked, _| answer(asked)).await;
    let node = Node::new(&plain(&[fake.address])).await;
    let pulled = node
        .pull(&format!("{}/a/b:v1", fake.address))
        .await
        .unwrap();
    assert_eq!(node.program(&pulled).await, component());
}

#[tokio::test]
async fn of_a_linux_image_all_is_fetched_and_nothing_is_a_program() {
    let config = br#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/bin/sh"]}}"#;
    let image = Image::new((OCI_CONFIG, config), &[(TAR_GZIP, b"a layer")]);
    let fake = Fake::serve(move |asked, _| image.answer(asked)).await;
    let node = Node::new(&plain(&[fake.address])).await;
    let pulled = node
        .pull(&format!("{}/a/b:v1", fake.address))
        .await
        .unwrap();
    assert_eq!(pulled.programs, None);
    assert_eq!(
        fake.asked("/blobs/").len(),
        2,
        "its configuration and its layer"
    );
}

#[tokio::test]
async fn images_without_one_program_say_so() {
    let wasi = br#"{"os":"wasi","architecture":"wasm"}"#;
    let two = [("a.wasm", component()), ("b.wasm", component())];
    let two = two.map(|(name, wasm)| tar(name, &wasm));
    let bomb = gzip(&tar("app.wasm", &vec![0; 600 << 20]));
    let cases: Vec<(&str, Image)> = vec![
        (
            "several WebAssembly files",
            Image::new(
                (OCI_CONFIG, wasi),
                &[(TAR_GZIP, &two[0]), (TAR_GZIP, &two[1])],
            ),
        ),
        (
            "no WebAssembly file",
            Image::new((OCI_CONFIG, wasi), &[(TAR_GZIP, &tar("readme", b"x"))]),
        ),
        (
            "neither WebAssembly nor a tar",
            Image::new((OCI_CONFIG, wasi), &[(TAR_GZIP, b"text")]),
        ),
        (
            "larger than",
            Image::new((OCI_CONFIG, wasi), &[(TAR_GZIP, &bomb)]),
        ),
    ];
    for (want, image) in cases {
        let fake = Fake::serve(move |asked, _| image.answer(asked)).await;
        let node = Node::new(&plain(&[fake.address])).await;
        let error = node.pull(&format!("{}/a/b:v1", fake.address)).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(want), "{want}: {error}");
    }
}
