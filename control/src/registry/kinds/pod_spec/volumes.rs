//! Volumes of a pod: names, and exactly one source each, checked by the rules of its type.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use windlass_api::names;

use super::super::field::{Errors, Field};
use super::super::label_selector;
use super::{Owner, PULL_POLICIES, amount, env};
use crate::registry::field_error::{FieldError, Problem};

type Check = fn(&Field<'_, '_>, &mut Errors);

/// Types of volumes in the order in which upstream looks for them.
const SOURCES: &[(&str, Check)] = &[
    ("emptyDir", empty_dir),
    ("hostPath", host_path),
    ("gitRepo", git_repo),
    ("gcePersistentDisk", gce_persistent_disk),
    ("awsElasticBlockStore", aws_elastic_block_store),
    ("secret", secret),
    ("nfs", nfs),
    ("iscsi", iscsi),
    ("glusterfs", glusterfs),
    ("flocker", flocker),
    ("persistentVolumeClaim", persistent_volume_claim),
    ("rbd", rbd),
    ("cinder", cinder),
    ("cephfs", cephfs),
    ("quobyte", quobyte),
    ("downwardAPI", downward_api),
    ("fc", fc),
    ("flexVolume", flex_volume),
    ("configMap", config_map),
    ("azureFile", azure_file),
    ("vsphereVolume", vsphere_volume),
    ("photonPersistentDisk", photon_persistent_disk),
    ("portworxVolume", portworx_volume),
    ("azureDisk", azure_disk),
    ("storageos", storage_os),
    ("projected", projected),
    ("scaleIO", scale_io),
    ("csi", csi),
    ("ephemeral", ephemeral),
    ("image", image),
];

const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const AZURE_CACHING_MODES: &[&str] = &["None", "ReadOnly", "ReadWrite"];
const AZURE_KINDS: &[&str] = &["Dedicated", "Managed", "Shared"];

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const PARTITION: &str = "must be between 0 and 255, inclusive";
const ISCSI_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
const HOST_PORTS: &str = "must be a host:port pair or multiple pairs separated by commas";

/// Fields of the pod that a volume may show as files.
const FIELD_PATHS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Shortest and longest life of a projected token, in seconds.
const TOKEN_LIFE: (i64, i64) = (600, 1 << 32);

/// Longest name of a CSI driver.
const DRIVER_MAX: usize = 63;

/// All that is wrong with the volumes; returns the sources of the others by name.
pub(super) fn validate<'v>(
    volumes: &Field<'_, 'v>,
    owner: Owner<'_>,
    errors: &mut Errors,
) -> HashMap<&'v str, &'v Value> {
    let mut valid = HashMap::new();
    let created: HashSet<String> = match owner {
        Owner::Pod(pod) => volumes
            .items()
            .filter(|volume| volume.has("ephemeral"))
            .map(|volume| format!("{pod}-{}", volume.text_of("name")))
            .collect(),
        Owner::Template => HashSet::new(),
    };
    for volume in volumes.items() {
        let before = errors.len();
        source(&volume, owner, errors);
        let name = volume.child("name");
        errors.extend(name.named(names::dns1123_label));
        if valid.contains_key(name.text()) {
            errors.push(name.duplicate());
        }
        if errors.len() == before {
            valid.insert(name.text(), volume.value());
        }
        let claims = volume.child("persistentVolumeClaim");
        let claim = claims.child("claimName");
        if created.contains(claim.text()) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(claim.invalid(detail));
        }
    }
    valid
}

fn source(volume: &Field<'_, '_>, owner: Owner<'_>, errors: &mut Errors) {
    let mut given = SOURCES.iter().filter(|(name, _)| volume.has(name));
    let Some((first, check)) = given.next() else {
        errors.push(volume.required("must specify a volume type"));
        return;
    };
    check(&volume.child(first), errors);
    for (name, _) in given {
        let detail = "may not specify more than 1 volume type";
        errors.push(volume.child(name).forbidden(detail));
    }
    let name = volume.child("name");
    match (*first, owner) {
        ("iscsi", _) => {
            let iscsi = volume.child("iscsi");
            let length = name.text().len() + 1 + iscsi.text_of("targetPortal").len();
            if iscsi.has("initiatorName") && length > 64 {
                errors.push(name.invalid(ISCSI_TOO_LONG));
            }
        }
        ("ephemeral", Owner::Pod(pod)) if !pod.is_empty() && !name.text().is_empty() => {
            let claim = format!("{pod}-{}", name.text());
            let problems = names::dns1123_subdomain(&claim).into_iter();
            errors.extend(problems.map(|p| name.invalid(format!("PVC name {claim:?}: {p}"))));
        }
        ("image", Owner::Pod(_)) => {
            let image = volume.child("image");
            errors.extend(image.child("reference").present());
        }
        _ => {}
    }
}

/// The members must be texts that are not empty.
fn required(source: &Field<'_, '_>, members: &[&str], errors: &mut Errors) {
    for member in members {
        errors.extend(source.child(member).present());
    }
}

fn empty_dir(source: &Field<'_, '_>, errors: &mut Errors) {
    let limit = source.child("sizeLimit");
    if amount(limit.value()).is_some_and(windlass_api::quantity::Quantity::is_negative) {
        errors.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
    }
}

fn host_path(source: &Field<'_, '_>, errors: &mut Errors) {
    let path = source.child("path");
    if let Some(missing) = path.present() {
        errors.push(missing);
        return;
    }
    without_backsteps(&path, errors);
    errors.extend(source.child("type").one_of(HOST_PATH_TYPES));
}

fn git_repo(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["repository"], errors);
    descending(&source.child("directory"), errors);
}

fn gce_persistent_disk(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["pdName"], errors);
    partition(source, errors);
}

fn aws_elastic_block_store(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["volumeID"], errors);
    partition(source, errors);
}

fn partition(source: &Field<'_, '_>, errors: &mut Errors) {
    let partition = source.child("partition");
    if partition.within(0, 255).is_some() {
        errors.push(partition.invalid(PARTITION));
    }
}

fn secret(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["secretName"], errors);
    mode(&source.child("defaultMode"), errors);
    keys(source, errors);
}

fn config_map(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["name"], errors);
    mode(&source.child("defaultMode"), errors);
    keys(source, errors);
}

fn keys(source: &Field<'_, '_>, errors: &mut Errors) {
    for item in source.child("items").items() {
        required(&item, &["key", "path"], errors);
        non_reserved(&item.child("path"), errors);
        mode(&item.child("mode"), errors);
    }
}

fn mode(field: &Field<'_, '_>, errors: &mut Errors) {
    if field.within(0, 0o777).is_some() {
        errors.push(field.invalid(MODE));
    }
}

fn nfs(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["server", "path"], errors);
    let path = source.child("path");
    if !path.text().starts_with('/') {
        errors.push(path.invalid("must be an absolute path"));
    }
}

fn iscsi(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["targetPortal"], errors);
    let name = source.child("iqn");
    match name.present() {
        Some(missing) => errors.push(missing),
        None => iscsi_name(&name, errors),
    }
    errors.extend(source.child("lun").within(0, 255));
    let authenticates = source.is_true("chapAuthDiscovery") || source.is_true("chapAuthSession");
    if authenticates && !source.has("secretRef") {
        errors.push(source.child("secretRef").required(""));
    }
    if source.has("initiatorName") {
        let initiator = source.child("initiatorName").value();
        iscsi_name(
            &Field::root(&source.child("initiatorname").path(), initiator),
            errors,
        );
    }
}

fn iscsi_name(field: &Field<'_, '_>, errors: &mut Errors) {
    let name = field.text();
    let hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    let valid = if let Some(rest) = name.strip_prefix("iqn") {
        is_qualified_iscsi_name(rest)
    } else if let Some(rest) = name.strip_prefix("eui") {
        rest.strip_prefix('.')
            .is_some_and(|id| id.len() == 16 && hex(id))
    } else if let Some(rest) = name.strip_prefix("naa") {
        rest.strip_prefix('.')
            .is_some_and(|id| id.len() == 32 && hex(id))
    } else {
        errors.push(field.invalid("must be valid format starting with iqn, eui, or naa"));
        return;
    };
    if !valid {
        errors.push(field.invalid("must be valid format"));
    }
}

/// `.YYYY-MM.domain`, optionally `:` and more.
fn is_qualified_iscsi_name(rest: &str) -> bool {
    let Some(rest) = rest.strip_prefix('.') else {
        return false;
    };
    let Some((date, domain)) = rest.split_once('.') else {
        return false;
    };
    let dated = date
        .split_once('-')
        .is_some_and(|(year, month)| year.len() == 4 && month.len() == 2);
    let digits = date.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let plain = |part: &str| {
        let mut bytes = part.bytes();
        !part.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let (domain, suffix) = domain.split_once(':').unwrap_or((domain, "-"));
    dated && digits && domain.split('.').all(plain) && !suffix.is_empty()
}

fn glusterfs(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["endpoints", "path"], errors);
}

fn flocker(source: &Field<'_, '_>, errors: &mut Errors) {
    let name = source.child("datasetName");
    match (
        name.text().is_empty(),
        source.text_of("datasetUUID").is_empty(),
    ) {
        (true, true) => {
            errors.push(source.required("one of datasetName and datasetUUID is required"));
        }
        (false, false) => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(source.invalid_as("resource", detail));
        }
        _ => {}
    }
    if name.text().contains('/') {
        errors.push(name.invalid("must not contain '/'"));
    }
}

fn persistent_volume_claim(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["claimName"], errors);
}

fn monitors(source: &Field<'_, '_>, errors: &mut Errors) {
    let monitors = source.child("monitors");
    if monitors.len() == 0 {
        errors.push(monitors.required(""));
    }
}

fn rbd(source: &Field<'_, '_>, errors: &mut Errors) {
    monitors(source, errors);
    required(source, &["image"], errors);
}

fn cephfs(source: &Field<'_, '_>, errors: &mut Errors) {
    monitors(source, errors);
}

fn cinder(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["volumeID"], errors);
    if source.has("secretRef") {
        required(&source.child("secretRef"), &["name"], errors);
    }
}

fn quobyte(source: &Field<'_, '_>, errors: &mut Errors) {
    let registry = source.child("registry");
    if registry.text().is_empty() {
        errors.push(registry.required(HOST_PORTS));
    } else if source.text_of("tenant").len() > 64 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(source.child("tenant").required(detail));
    } else {
        let pairs = registry.text().split(',');
        let broken = pairs.filter(|pair| !pair.contains(':'));
        errors.extend(broken.map(|_| registry.invalid(HOST_PORTS)));
    }
    required(source, &["volume"], errors);
}

fn downward_api(source: &Field<'_, '_>, errors: &mut Errors) {
    mode(&source.child("defaultMode"), errors);
    for item in source.child("items").items() {
        downward_file(&item, source, errors);
    }
}

/// A file of a downward API volume; upstream names the volume, not the file, in its errors.
fn downward_file(file: &Field<'_, '_>, source: &Field<'_, '_>, errors: &mut Errors) {
    let at = source.path();
    let named = Field::root(&at, file.value());
    required(&named, &["path"], errors);
    non_reserved(&named.child("path"), errors);
    match (named.has("fieldRef"), named.has("resourceFieldRef")) {
        (true, both) => {
            env::validate_field_ref(&named.child("fieldRef"), FIELD_PATHS, errors);
            if both {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(named.invalid_as("resource", detail));
            }
        }
        (false, true) => {
            env::validate_resource_field_ref(&named.child("resourceFieldRef"), true, errors);
        }
        (false, false) => {
            errors.push(named.required("one of fieldRef and resourceFieldRef is required"));
        }
    }
    mode(&named.child("mode"), errors);
}

fn fc(source: &Field<'_, '_>, errors: &mut Errors) {
    let names = source.child("targetWWNs");
    match (names.len(), source.child("wwids").len()) {
        (0, 0) => {
            let detail = "must specify either targetWWNs or wwids, but not both";
            errors.push(names.required(detail));
        }
        (1.., 1..) => {
            let detail = "targetWWNs and wwids can not be specified simultaneously";
            errors.push(names.invalid(detail));
        }
        _ => {}
    }
    let lun = source.child("lun");
    if names.len() > 0 && !lun.is_set() {
        errors.push(lun.required("lun is required if targetWWNs is specified"));
    } else if names.len() > 0 {
        errors.extend(lun.within(0, 255));
    }
}

fn flex_volume(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["driver"], errors);
    for (key, option) in source.child("options").entries() {
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let namespace = format!(".{}", namespace.to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(option.invalid_as(key, detail));
        }
    }
}

fn azure_file(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["secretName", "shareName"], errors);
}

fn azure_disk(source: &Field<'_, '_>, errors: &mut Errors) {
    const MANAGED: &str = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str =
        "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    required(source, &["diskName", "diskURI"], errors);
    errors.extend(source.child("cachingMode").one_of(AZURE_CACHING_MODES));
    errors.extend(source.child("kind").one_of(AZURE_KINDS));
    let uri = source.child("diskURI");
    let managed = source.text_of("kind") == "Managed";
    if managed && !uri.text().starts_with("/subscriptions/") {
        errors.push(uri.not_supported(&[MANAGED]));
    } else if !managed && !uri.text().starts_with("https://") {
        errors.push(uri.not_supported(&[BLOB]));
    }
}

fn vsphere_volume(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["volumePath"], errors);
}

fn photon_persistent_disk(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["pdID"], errors);
}

fn portworx_volume(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["volumeID"], errors);
}

fn storage_os(source: &Field<'_, '_>, errors: &mut Errors) {
    errors.extend(source.child("volumeName").named(names::dns1123_label));
    let namespace = source.child("volumeNamespace");
    errors.extend(namespace.follows_if_set(names::dns1123_label));
    if source.has("secretRef") {
        required(&source.child("secretRef"), &["name"], errors);
    }
}

fn scale_io(source: &Field<'_, '_>, errors: &mut Errors) {
    required(source, &["gateway", "system", "volumeName"], errors);
}

fn csi(source: &Field<'_, '_>, errors: &mut Errors) {
    let driver = source.child("driver");
    if let Some(missing) = driver.present() {
        errors.push(missing);
    } else {
        if driver.text().len() > DRIVER_MAX {
            errors.push(driver.error(Problem::TooLong(DRIVER_MAX)));
        }
        let problems = names::dns1123_subdomain(&driver.text().to_lowercase());
        errors.extend(problems.into_iter().map(|p| driver.invalid(p)));
    }
    if source.has("nodePublishSecretRef") {
        let secret = source.child("nodePublishSecretRef");
        errors.extend(secret.child("name").named(names::dns1123_subdomain));
    }
}

fn ephemeral(source: &Field<'_, '_>, errors: &mut Errors) {
    let template = source.child("volumeClaimTemplate");
    if !template.is_set() {
        errors.push(template.required(""));
        return;
    }
    let spec = template.child("spec");
    let claim = super::super::field_path::Field::new(spec.path(), spec.value());
    errors.extend(super::super::persistent_volume_claim::validate_spec(&claim));
}

fn image(source: &Field<'_, '_>, errors: &mut Errors) {
    errors.extend(source.child("pullPolicy").choice(PULL_POLICIES));
}

fn projected(source: &Field<'_, '_>, errors: &mut Errors) {
    mode(&source.child("defaultMode"), errors);
    let mut paths = HashSet::new();
    for part in source.child("sources").items() {
        let mut given = 0;
        for kind in ["secret", "configMap"] {
            let part = part.child(kind);
            if part.is_set() {
                given += 1;
                required(&part, &["name"], errors);
                keys(&part, errors);
                let taken = duplicate_paths(&part, &mut paths);
                errors.extend((0..taken).map(|_| conflict(source, part.text_of("name"))));
            }
        }
        let downward = part.child("downwardAPI");
        if downward.is_set() {
            given += 1;
            for file in downward.child("items").items() {
                downward_file(&file, &downward, errors);
                if !file.text_of("path").is_empty() && !paths.insert(file.text_of("path")) {
                    errors.push(conflict(source, file.text_of("path")));
                }
            }
        }
        let token = part.child("serviceAccountToken");
        if token.is_set() {
            given += 1;
            service_account_token(&token, source, errors);
        }
        let bundle = part.child("clusterTrustBundle");
        if bundle.is_set() {
            given += 1;
            cluster_trust_bundle(&bundle, errors);
            if !paths.insert(bundle.text_of("path")) {
                errors.push(conflict(source, bundle.text_of("path")));
            }
        }
        if given > 1 {
            errors.push(part.forbidden("may not specify more than 1 volume type per source"));
        }
    }
}

fn conflict(source: &Field<'_, '_>, value: &str) -> FieldError {
    source.invalid_as(value, "conflicting duplicate paths")
}

/// How many of the items' paths are taken by others.
fn duplicate_paths<'v>(part: &Field<'_, 'v>, paths: &mut HashSet<&'v str>) -> usize {
    let items = part.child("items");
    let own = items.items().map(|item| item.text_of("path"));
    own.filter(|path| !path.is_empty() && !paths.insert(path))
        .count()
}

fn service_account_token(token: &Field<'_, '_>, source: &Field<'_, '_>, errors: &mut Errors) {
    let (shortest, longest) = TOKEN_LIFE;
    let life = token.child("expirationSeconds");
    let seconds = life.integer().unwrap_or_default();
    if seconds < shortest {
        errors.push(life.invalid("may not specify a duration less than 10 minutes"));
    }
    if seconds > longest {
        errors.push(life.invalid("may not specify a duration larger than 2^32 seconds"));
    }
    let at = source.path();
    let named = Field::root(&at, token.value());
    let path = named.child("path");
    match path.present() {
        Some(missing) => errors.push(missing),
        None => non_reserved(&path, errors),
    }
}

fn cluster_trust_bundle(bundle: &Field<'_, '_>, errors: &mut Errors) {
    let selector = bundle.child("labelSelector");
    match (bundle.has("name"), bundle.has("signerName")) {
        (true, true) => {
            errors.push(bundle.invalid("only one of name and signerName may be used"));
        }
        (true, false) => {
            if bundle.text_of("name").is_empty() {
                errors.push(bundle.child("name").required("must be a valid object name"));
            }
            if selector.is_set() {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(selector.invalid(detail));
            }
        }
        (false, true) => {
            if bundle.text_of("signerName").is_empty() {
                let signer = bundle.child("signerName");
                errors.push(signer.required("must be a valid signer name"));
            }
            label_selector::validate(&selector, errors);
        }
        (false, false) => {
            errors.push(bundle.required("either name or signerName must be specified"));
        }
    }
    required(bundle, &["path"], errors);
    non_reserved(&bundle.child("path"), errors);
}

/// The path is relative and stays where it is.
pub(super) fn descending(path: &Field<'_, '_>, errors: &mut Errors) {
    if path.text().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    without_backsteps(path, errors);
}

/// The path has no element `..`.
pub(super) fn without_backsteps(path: &Field<'_, '_>, errors: &mut Errors) {
    if path.text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}

/// The path is relative, stays where it is, and does not look like an internal one.
pub(super) fn non_reserved(path: &Field<'_, '_>, errors: &mut Errors) {
    descending(path, errors);
    let text = path.text();
    if text.starts_with("..") && !text.starts_with("../") {
        errors.push(path.invalid("must not start with '..'"));
    }
}
