//! The cluster: the scripts that start and break it, kubectl and helm.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::images::Images;

/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(200);

/// A Kubernetes that is up.
pub(crate) struct Cluster {
    /// The folder with `up`, `down`, `in`, `load` and `fault`.
    scripts: PathBuf,
    /// The folder with `helm` and `kubeconform`.
    programs: PathBuf,
    images: Images,
    /// The nodes that take pods, by name.
    pub(crate) nodes: Vec<String>,
}

impl Cluster {
    /// Starts it. What `up` says goes to stderr.
    pub(crate) fn up(
        scripts: &Path,
        programs: &Path,
        images: Images,
        nodes: usize,
    ) -> anyhow::Result<Self> {
        let (scripts, programs) = (scripts.to_owned(), programs.to_owned());
        let mut cluster = Self { scripts, programs, images, nodes: Vec::new() };
        let mut up = cluster.script("up", &[&nodes.to_string()]);
        output(up.stderr(Stdio::inherit())).context("start the cluster")?;
        let workers = "!node-role.kubernetes.io/control-plane";
        let names = cluster.kubectl(&["get", "nodes", "-l", workers, "-o", "name"])?;
        cluster.nodes = names.lines().map(|name| name.replace("node/", "")).collect();
        Ok(cluster)
    }

    /// Sees to it that every node has one of the images of [`crate::images`].
    pub(crate) fn provide(&self, image: &'static str) -> anyhow::Result<()> {
        self.images.provide(self, image)
    }

    /// See [`Images::before`].
    pub(crate) fn image_before(&self) -> &'static str {
        self.images.before()
    }

    /// Puts an image archive onto every node.
    pub(crate) fn load(&self, archive: &Path) -> anyhow::Result<()> {
        let archive = archive.to_str().context("path of the image")?;
        output(&mut self.script("load", &[archive])).context("load the image").map(drop)
    }

    /// Breaks or mends something; `netns/fault` says what there is.
    pub(crate) fn fault(&self, words: &[&str]) -> anyhow::Result<()> {
        let done = output(&mut self.script("fault", words));
        done.with_context(|| format!("fault {}", words.join(" "))).map(drop)
    }

    /// A command that reaches API server, pods and node ports.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.script("in", words)
    }

    fn script(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.scripts.join(name));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// What `kubectl` prints.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut words = vec!["kubectl"];
        words.extend(arguments);
        output(&mut self.command(&words))
    }

    /// As [`Cluster::kubectl`], with a text on stdin.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], stdin: &str) -> anyhow::Result<String> {
        let mut words = vec!["kubectl"];
        words.extend(arguments);
        output_of(&mut self.command(&words), stdin)
    }

    /// Makes the link `kubectl-weir` to the program under test, as a user does.
    pub(crate) fn link_plugin(&self, folder: &Path) -> anyhow::Result<()> {
        let weir = self.images.weir().canonicalize().context("the program under test")?;
        std::os::unix::fs::symlink(weir, folder.join("kubectl-weir")).context("make the link")
    }

    /// What `kubectl weir` prints, with the link `kubectl-weir` to `weir` in a folder of $PATH.
    pub(crate) fn kubectl_weir(&self, folder: &Path, words: &[&str]) -> anyhow::Result<String> {
        let path = std::env::var("PATH").context("there is no PATH")?;
        let path = format!("PATH={}:{path}", folder.to_str().context("path of the link")?);
        let mut all = vec!["env", &path, "kubectl", "weir"];
        all.extend(words);
        output(&mut self.command(&all))
    }

    /// What `helm` prints.
    pub(crate) fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        // Where it was not built, as with kind, the one in $PATH.
        let built = self.programs.join("helm");
        let helm = if built.exists() { built } else { PathBuf::from("helm") };
        let mut words = vec![helm.to_str().context("path of helm")?];
        words.extend(arguments);
        output(&mut self.command(&words))
    }

    /// The namespace `name`, which is made; pods in it have to keep to the restricted profile.
    pub(crate) fn namespace(&self, name: &str) -> anyhow::Result<Namespace<'_>> {
        let manifest = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/enforce-version": "latest",
            }},
        });
        self.kubectl_with(&["apply", "-f", "-"], &manifest.to_string())?;
        Ok(self.existing(name))
    }

    /// A namespace that is there.
    pub(crate) fn existing(&self, name: &str) -> Namespace<'_> {
        Namespace { cluster: self, name: name.to_owned(), numbers: RefCell::default() }
    }
}

/// One namespace of the cluster. Each test has its own.
pub(crate) struct Namespace<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) name: String,
    numbers: RefCell<BTreeMap<String, f64>>,
}

impl Namespace<'_> {
    /// Keeps a number for the file of results; its unit is the end of its name, as in `outage_s`.
    pub(crate) fn measured(&self, what: &str, number: f64) {
        self.numbers.borrow_mut().insert(what.to_owned(), number);
    }

    pub(crate) fn numbers(&self) -> BTreeMap<String, f64> {
        self.numbers.borrow().clone()
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut words = vec!["-n", &self.name];
        words.extend(arguments);
        self.cluster.kubectl(&words)
    }

    /// Applies manifests as a user does.
    pub(crate) fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        self.cluster.kubectl_with(&["-n", &self.name, "apply", "-f", "-"], manifests)
    }

    /// An object, or `None` if there is none.
    pub(crate) fn object(&self, kind: &str, name: &str) -> anyhow::Result<Option<Value>> {
        let text = self.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"])?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).with_context(|| format!("read {kind} {name}")).map(Some)
    }

    /// All objects of a kind with these labels; `""`: whatever their labels.
    pub(crate) fn objects(&self, kind: &str, labels: &str) -> anyhow::Result<Vec<Value>> {
        let text = self.kubectl(&["get", kind, "-l", labels, "-o", "json"])?;
        let mut list: Value =
            serde_json::from_str(&text).with_context(|| format!("read the list of {kind}"))?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("the list of {kind} has no items"),
        }
    }

    /// Waits until the pod is ready.
    pub(crate) fn pod_ready(&self, pod: &str, seconds: u64) -> anyhow::Result<()> {
        wait(&format!("pod {pod} is ready"), seconds, || {
            Ok(self.object("pod", pod)?.filter(is_ready).map(drop))
        })
    }

    /// Runs a command in a pod and gives what it prints.
    pub(crate) fn exec(&self, pod: &str, words: &[&str]) -> anyhow::Result<String> {
        let mut arguments = vec!["exec", pod, "--"];
        arguments.extend(words);
        self.kubectl(&arguments)
    }

    /// The node that the pod is on.
    pub(crate) fn node_of(&self, pod: &str) -> anyhow::Result<String> {
        let object = self.object("pod", pod)?.with_context(|| format!("pod {pod} is gone"))?;
        let node = object["spec"]["nodeName"].as_str();
        node.map(str::to_owned).with_context(|| format!("pod {pod} is on no node"))
    }
}

/// The status of a condition of an object; `None` without such a condition.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

pub(crate) fn is_ready(object: &Value) -> bool {
    condition(object, "Ready") == Some("True") && object["metadata"]["deletionTimestamp"].is_null()
}

/// Looks until there is something, at most for `seconds`. An error does not end it: the API server
/// or a pod may be out of reach for a while. It is told when the time is up.
pub(crate) fn wait<T>(
    what: &str,
    seconds: u64,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let looked = look();
        if let Ok(Some(found)) = looked {
            return Ok(found);
        }
        if Instant::now() >= end {
            let problem = format!("not so after {seconds} s: {what}");
            return Err(match looked {
                Err(error) => error.context(problem),
                Ok(_) => anyhow::anyhow!(problem),
            });
        }
        std::thread::sleep(POLL);
    }
}

/// What the command prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.output().with_context(|| format!("run {command:?}"))?;
    finished(command, &done)
}

pub(crate) fn output_of(command: &mut Command, stdin: &str) -> anyhow::Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run {command:?}"))?;
    let mut pipe = child.stdin.take().context("no stdin")?;
    // A command that ends early closes the pipe; what it says then is told below.
    let _ = pipe.write_all(stdin.as_bytes());
    drop(pipe);
    let done = child.wait_with_output().with_context(|| format!("wait for {command:?}"))?;
    finished(command, &done)
}

fn finished(command: &Command, done: &Output) -> anyhow::Result<String> {
    let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(stdout);
    }
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let stderr = String::from_utf8_lossy(&done.stderr);
    bail!("`{}` ended with {}: {}{}", words.join(" "), done.status, stderr.trim(), stdout.trim())
}
