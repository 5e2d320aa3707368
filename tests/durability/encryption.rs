//! Secrets in a data file that is encrypted: not to be read without the key, and not lost when keys change.

use std::path::Path;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use windlass_control::identity::{MASTERS, UserInfo};
use windlass_control::store::encryption::Encryption;
use windlass_control::store::rewrite::rewrite;
use windlass_control::{Config, ControlPlane, StartError, data_file};

const OLD: &str = "{name: old, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}";
const NEW: &str = "{name: new, secret: ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=}";
const TOLD: &str = "told-to-nobody";

fn with(keys: &str) -> Encryption {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers: [{{aesgcm: {{keys: [{keys}]}}}}, {{identity: {{}}}}]"
    );
    Encryption::parse(&text).unwrap()
}

async fn start(
    dir: &Path,
    encryption: &Encryption,
) -> Result<(ControlPlane, Api<Secret>), StartError> {
    let mut config = Config::new(dir.to_owned());
    config.listen = ([127, 0, 0, 1], 0).into();
    config.encryption = encryption.clone();
    let plane = ControlPlane::start(config).await?;
    let client = plane.client(UserInfo::authenticated("admin", &[MASTERS]));
    let secrets = Api::namespaced(client, "default");
    Ok((plane, secrets))
}

fn shows(dir: &Path) -> bool {
    let bytes = std::fs::read(data_file(dir)).unwrap();
    // As the API writes it: data is base64 of what was told.
    let written = [TOLD.as_bytes(), b"dG9sZC10by1ub2JvZHk"];
    let holds = |text: &&[u8]| bytes.windows(text.len()).any(|part| part == *text);
    written.iter().any(holds)
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_written_with_the_keys_there_are_and_read_with_those_there_were() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let (plane, secrets) = start(dir, &with(OLD)).await.unwrap();
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some("s".into()),
            ..ObjectMeta::default()
        },
        string_data: Some([("told".to_owned(), TOLD.to_owned())].into()),
        ..Secret::default()
    };
    let params = PostParams::default();
    secrets.create(&params, &secret).await.unwrap();
    plane.shutdown().await;
    assert!(!shows(dir));
    // Without the key it does not start, and says which it is.
    let refused = start(dir, &Encryption::default()).await;
    let refused = refused.err().unwrap().to_string();
    assert!(
        refused.contains("is encrypted with key \"old\""),
        "{refused}"
    );
    let both = with(&format!("{NEW}, {OLD}"));
    let written = rewrite(&data_file(dir), &both).unwrap();
    assert!(
        written.changed >= 1 && written.all > written.changed,
        "{written:?}"
    );
    let (plane, secrets) = start(dir, &with(NEW)).await.unwrap();
    let found = secrets.get("s").await.unwrap();
    assert_eq!(found.data.unwrap()["told"].0, TOLD.as_bytes());
    plane.shutdown().await;
    assert!(!shows(dir));
}
