//! What registries and users write about images: references, manifests, credentials, and a machine's configuration.
//! What was read and is written is the same again.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use windlass_oci::credentials::{Keyring, Origin};
use windlass_oci::manifest::Manifest;
use windlass_oci::reference::Reference;
use windlass_oci::registry::remote::config::RegistryConfig;

fuzz_target!(|data: &[u8]| {
    if let Ok(Manifest::Index(index)) = Manifest::parse(data, None) {
        let _ = index.select("amd64");
    }
    let mut keyring = Keyring::default();
    let _ = keyring.add_config_json(data, &Origin::Machine);
    let _ = keyring.add_dockercfg(data, &Origin::Machine);
    let _ = keyring.lookup("registry.example:5000", "team/app");
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = RegistryConfig::parse(text, Path::new("/"));
    if let Ok(reference) = text.parse::<Reference>() {
        let again = reference.to_string().parse::<Reference>();
        assert_eq!(again.as_ref(), Ok(&reference), "{text}");
        let _ = keyring.lookup(reference.registry(), reference.repository());
    }
});
