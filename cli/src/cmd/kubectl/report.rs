//! `kubectl weir report`: what somebody needs who was not there, in one archive.
//!
//! Of Secrets only names and labels are fetched, and values of environment variables are left out. What
//! could not be fetched is in `errors.txt`, so that nobody takes it for not being there.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ApiResource, DynamicObject, ListParams, LogParams, ObjectList};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use weirmq_operator::kinds::{Broker, BrokerGroup, ConsumerGroup, NameServer, Topic};

use super::{Place, status};

/// Collect resources, events and logs of a namespace in one archive, which only you can read, without the
/// values of Secrets and of environment variables
#[derive(clap::Args)]
#[command(visible_alias = "logs")]
pub(super) struct ReportArgs {
    /// The archive [default: weirmq-report-NAMESPACE-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The newest lines of each container's log that are kept
    #[arg(long, value_name = "LINES", default_value_t = 20_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tail: u32,
    /// The namespace of the operator [default: where its pods are, if that can be looked up]
    #[arg(long, value_name = "NAME")]
    operator_namespace: Option<String>,
}

/// What the operator's own objects carry.
const MADE: &str = "app.kubernetes.io/managed-by=weirmq-operator";
/// What the chart's pods carry.
const OPERATOR: &str = "app.kubernetes.io/name=weirmq-operator";
/// Of one log; the API server counts them from its beginning.
const LOG_BYTES_MAX: i64 = 64 << 20;
/// Logs and messages of errors may hold what is nobody else's business.
const PRIVATE: u32 = 0o600;
/// What a container writes between two restarts may say why it was restarted.
const LOGS: [(&str, bool); 2] = [("log", false), ("previous.log", true)];

#[derive(Serialize)]
struct Done {
    file: PathBuf,
    entries: usize,
    /// What could not be fetched.
    errors: Vec<String>,
}

pub(super) async fn run(args: ReportArgs, place: &Place) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let stem = format!("weirmq-report-{}-{}", place.namespace, now.strftime("%Y%m%dT%H%M%SZ"));
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("{stem}.tar.gz")));
    let file = create(&path).with_context(|| format!("create {}", path.display()))?;
    let encoder = GzEncoder::new(file, Compression::default());
    let archive = tar::Builder::new(encoder);
    let time = u64::try_from(now.as_second()).unwrap_or_default();
    let mut report = Report { archive, stem, time, entries: 0, errors: Vec::new() };
    report.collect(&args, place).await?;
    let (entries, errors) = report.finish().with_context(|| format!("write {}", path.display()))?;
    for error in &errors {
        eprintln!("not in the report: {error}");
    }
    let text = format!("{} has {entries} files", path.display());
    Ok(place.output.done(&text, &Done { file: path, entries, errors })?)
}

/// An empty file that nobody else can read, also where it was there before.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(PRIVATE).open(path)?;
    file.set_permissions(Permissions::from_mode(PRIVATE))?;
    Ok(file)
}

struct Report {
    archive: tar::Builder<GzEncoder<File>>,
    /// The folder that everything is in.
    stem: String,
    /// Seconds since 1970, of all entries.
    time: u64,
    entries: usize,
    errors: Vec<String>,
}

impl Report {
    async fn collect(&mut self, args: &ReportArgs, place: &Place) -> anyhow::Result<()> {
        let version = format!("kubectl-weir {}\n", env!("CARGO_PKG_VERSION"));
        self.add("version.txt", version.as_bytes())?;
        match status::all(place, Some(&place.namespace)).await {
            Ok(views) => self.add("status.json", &serde_json::to_vec_pretty(&views)?)?,
            Err(error) => self.errors.push(format!("status.json: {error:#}")),
        }
        for (resource, labels) in kinds() {
            self.objects(place, &place.namespace, &resource, labels).await?;
        }
        self.secrets(place).await?;
        self.logs(place, &place.namespace, MADE, args.tail).await?;
        self.operator(args, place).await
    }

    /// The operator's Deployment, events and logs.
    async fn operator(&mut self, args: &ReportArgs, place: &Place) -> anyhow::Result<()> {
        let namespaces = match &args.operator_namespace {
            Some(namespace) => vec![namespace.clone()],
            None => {
                let api: Api<Pod> = Api::all(place.client.clone());
                match api.list_metadata(&ListParams::default().labels(OPERATOR)).await {
                    Ok(pods) => {
                        let mut found: Vec<String> =
                            pods.iter().filter_map(|pod| pod.namespace()).collect();
                        found.sort();
                        found.dedup();
                        found
                    }
                    Err(error) => {
                        let error = said(&error);
                        self.errors.push(format!(
                            "the operator: look for its pods: {error}; name --operator-namespace"
                        ));
                        return Ok(());
                    }
                }
            }
        };
        if namespaces.is_empty() {
            self.errors.push("the operator: no pod of it was found".to_owned());
        }
        for namespace in namespaces {
            let deployment = ApiResource::erase::<Deployment>(&());
            self.objects(place, &namespace, &deployment, OPERATOR).await?;
            if namespace != place.namespace {
                self.objects(place, &namespace, &ApiResource::erase::<Event>(&()), "").await?;
            }
            self.logs(place, &namespace, OPERATOR, args.tail).await?;
        }
        Ok(())
    }

    /// A file for each object of a kind.
    async fn objects(
        &mut self,
        place: &Place,
        namespace: &str,
        resource: &ApiResource,
        labels: &str,
    ) -> anyhow::Result<()> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(place.client.clone(), namespace, resource);
        let listed: kube::Result<ObjectList<DynamicObject>> =
            api.list(&ListParams::default().labels(labels)).await;
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                self.errors.push(format!("{namespace}/{}: {}", resource.plural, said(&error)));
                return Ok(());
            }
        };
        for mut object in listed {
            object.metadata.managed_fields = None;
            // The whole resource as text once more.
            object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
            let name = object.name_any();
            let mut object = serde_json::to_value(object).context("write an object as JSON")?;
            leave_env_out(&mut object);
            let text = serde_yaml::to_string(&object).context("write an object as YAML")?;
            self.add(&format!("{namespace}/{}/{name}.yaml", resource.plural), text.as_bytes())?;
        }
        Ok(())
    }

    /// Which Secrets there are. Their values never leave the API server.
    async fn secrets(&mut self, place: &Place) -> anyhow::Result<()> {
        let api: Api<Secret> = Api::namespaced(place.client.clone(), &place.namespace);
        match api.list_metadata(&ListParams::default().labels(MADE)).await {
            Ok(listed) => {
                for mut secret in listed {
                    secret.metadata.managed_fields = None;
                    // What was applied stands in an annotation once more.
                    secret.metadata.annotations = None;
                    let text = serde_yaml::to_string(&secret).context("write YAML")?;
                    let name = secret.name_any();
                    let path = format!("{}/secrets/{name}.yaml", place.namespace);
                    self.add(&path, text.as_bytes())?;
                }
            }
            Err(error) => {
                self.errors.push(format!("{}/secrets: {}", place.namespace, said(&error)));
            }
        }
        Ok(())
    }

    /// The log of each container, and that of its run before.
    async fn logs(
        &mut self,
        place: &Place,
        namespace: &str,
        labels: &str,
        lines: u32,
    ) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(place.client.clone(), namespace);
        let pods = match api.list(&ListParams::default().labels(labels)).await {
            Ok(pods) => pods,
            Err(error) => {
                self.errors.push(format!("{namespace}/logs: list pods: {}", said(&error)));
                return Ok(());
            }
        };
        for pod in pods {
            let name = pod.name_any();
            let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers[..]);
            for container in containers {
                let restarted = pod.status.as_ref().and_then(|status| {
                    let known = status.container_statuses.as_ref()?;
                    known.iter().find(|known| known.name == container.name)
                });
                let has_run_before = restarted.is_some_and(|known| known.restart_count > 0);
                for (suffix, previous) in LOGS {
                    if previous && !has_run_before {
                        continue;
                    }
                    let parameters = LogParams {
                        container: Some(container.name.clone()),
                        previous,
                        timestamps: true,
                        limit_bytes: Some(LOG_BYTES_MAX),
                        tail_lines: Some(i64::from(lines)),
                        ..LogParams::default()
                    };
                    let path = format!("{namespace}/logs/{name}/{}.{suffix}", container.name);
                    match api.logs(&name, &parameters).await {
                        Ok(text) => self.add(&path, text.as_bytes())?,
                        Err(error) => self.errors.push(format!("{path}: {}", said(&error))),
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(PRIVATE);
        header.set_mtime(self.time);
        let path = Path::new(&self.stem).join(path);
        self.archive.append_data(&mut header, path, bytes).context("write the archive")?;
        self.entries += 1;
        Ok(())
    }

    /// How many files there are, and what could not be fetched.
    fn finish(mut self) -> anyhow::Result<(usize, Vec<String>)> {
        let text: String = self.errors.iter().map(|error| format!("{error}\n")).collect();
        if !text.is_empty() {
            self.add("errors.txt", text.as_bytes())?;
        }
        let encoder = self.archive.into_inner()?;
        encoder.finish()?.sync_all()?;
        Ok((self.entries, self.errors))
    }
}

/// Puts a remark in place of what environment variables are set to, in pods and in templates of pods: people
/// write passwords there. From where a value is taken stays.
fn leave_env_out(object: &mut Value) {
    match object {
        Value::Array(values) => values.iter_mut().for_each(leave_env_out),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::Array(variables) if key == "env" => {
                        let values =
                            variables.iter_mut().filter_map(|variable| variable.get_mut("value"));
                        values.for_each(|value| *value = json!("(left out of the report)"));
                    }
                    value => leave_env_out(value),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Kinds and the labels of the objects that are wanted; `""`: all.
fn kinds() -> [(ApiResource, &'static str); 18] {
    [
        (ApiResource::erase::<NameServer>(&()), ""),
        (ApiResource::erase::<Broker>(&()), ""),
        (ApiResource::erase::<BrokerGroup>(&()), ""),
        (ApiResource::erase::<Topic>(&()), ""),
        (ApiResource::erase::<ConsumerGroup>(&()), ""),
        (ApiResource::erase::<Event>(&()), ""),
        (ApiResource::erase::<StatefulSet>(&()), MADE),
        (ApiResource::erase::<Pod>(&()), MADE),
        (ApiResource::erase::<PersistentVolumeClaim>(&()), MADE),
        (ApiResource::erase::<ConfigMap>(&()), MADE),
        (ApiResource::erase::<Service>(&()), MADE),
        (ApiResource::erase::<EndpointSlice>(&()), MADE),
        (ApiResource::erase::<Lease>(&()), MADE),
        (ApiResource::erase::<PodDisruptionBudget>(&()), MADE),
        (ApiResource::erase::<NetworkPolicy>(&()), MADE),
        (ApiResource::erase::<ServiceAccount>(&()), MADE),
        (ApiResource::erase::<Role>(&()), MADE),
        (ApiResource::erase::<RoleBinding>(&()), MADE),
    ]
}

/// What the API server said, without all the fields in which it said it.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_variables_keep_their_names_alone() {
        let from = json!({ "secretKeyRef": { "name": "s", "key": "k" } });
        let mut object = json!({ "spec": { "pod": { "template": { "spec": { "containers": [
            { "name": "broker", "env": [{ "name": "A", "value": "hidden" }, { "name": "B", "valueFrom": from }] },
        ] } } } } });
        leave_env_out(&mut object);
        let text = object.to_string();
        assert!(!text.contains("hidden"), "{text}");
        let env = &object["spec"]["pod"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!((&env[0]["name"], &env[1]["valueFrom"]), (&json!("A"), &from));
        // A field that is only called so.
        let mut other = json!({ "env": { "value": 1 } });
        leave_env_out(&mut other);
        assert_eq!(other, json!({ "env": { "value": 1 } }));
    }

    #[test]
    fn nobody_else_reads_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.tar.gz");
        std::fs::write(&path, "of before").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        for _ in 0..2 {
            create(&path).unwrap();
            let found = std::fs::metadata(&path).unwrap();
            assert_eq!((found.permissions().mode() & 0o777, found.len()), (PRIVATE, 0));
            std::fs::remove_file(&path).unwrap();
        }
    }
}
