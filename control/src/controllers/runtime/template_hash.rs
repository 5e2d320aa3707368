//! The hash of a pod template, which tells the ReplicaSets of a Deployment and the revisions of others apart.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// Label that carries the hash.
pub const LABEL: &str = "pod-template-hash";

/// Characters of hashes: no vowels and no digits that look like them, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// The hash of a template, different for each collision count.
///
/// Differs from Kubernetes: hashed is the template's JSON, not its memory layout in another language;
/// the same template has another hash there.
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Serializing a value of this type cannot fail: all its keys are text.
    let json = serde_json::to_vec(template).unwrap_or_default();
    let collisions = collisions.map(i32::to_le_bytes);
    let bytes = json.iter().chain(collisions.iter().flatten());
    let number = bytes.fold(FNV_OFFSET, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(FNV_PRIME)
    });
    encode(&number.to_string())
}

fn encode(text: &str) -> String {
    let safe = |byte: u8| ALPHABET.get(usize::from(byte) % ALPHABET.len());
    text.bytes()
        .filter_map(safe)
        .map(|byte| char::from(*byte))
        .collect()
}

/// Whether two templates are the same but for the hash label.
pub fn same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let without = |template: &PodTemplateSpec| {
        let mut metadata = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut metadata.labels {
            labels.remove(LABEL);
        }
        metadata.labels = metadata.labels.filter(|labels| !labels.is_empty());
        metadata
    };
    a.spec == b.spec && without(a) == without(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hashes_depend_on_template_and_collisions_alone() {
        let template = |image: &str, labels: serde_json::Value| -> PodTemplateSpec {
            serde_json::from_value(json!({"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": image}]}}))
            .unwrap()
        };
        let a = template("a", json!({"app": "x"}));
        assert_eq!(hash(&a, None), hash(&a.clone(), None));
        assert_ne!(hash(&a, None), hash(&a, Some(1)));
        assert_ne!(
            hash(&a, None),
            hash(&template("b", json!({"app": "x"})), None)
        );
        assert!(hash(&a, None).bytes().all(|byte| ALPHABET.contains(&byte)));
        assert!(same(&a, &template("a", json!({"app": "x", LABEL: "abc"}))));
        assert!(!same(&a, &template("a", json!({"app": "y"}))));
    }
}
