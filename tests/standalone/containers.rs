//! The image and the Kubernetes manifests: what a container engine and a kubelet do with them, in namespaces of our own.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use gateway::internals::load_text;
use gateway::programs::{Env, Overrides};
use serde_json::Value;

use crate::support::gateway::said;
use crate::support::load::{Load, Running};
use crate::support::pod::{Container, Pod};
use crate::support::report::Part;
use crate::support::{packages, servers, skip, wait};

/// The manifests, by their place.
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/kubernetes");

/// Where `tests/run` puts the schemas.
const SCHEMAS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python");

/// The port of the image and of the manifests.
const PORT: u16 = 8080;

/// New connections a second to one pod.
const RATE: f64 = 40.0;

/// A limit for what a kubelet has no limit for.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A file of an unpacked OCI archive by its digest, as JSON.
fn blob(archive: &Path, digest: &Value) -> PathBuf {
    let digest = digest.as_str().unwrap().replace(':', "/");
    archive.join("blobs").join(digest)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn must(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    output.stdout
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

/// Unpacks an OCI archive: the configuration of the image and its root.
fn unpack(archive: &Path, into: &Path) -> (Value, PathBuf) {
    let (parts, root) = (into.join("parts"), into.join("root"));
    fs::create_dir(&parts).unwrap();
    fs::create_dir(&root).unwrap();
    must(
        Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .arg("-C")
            .arg(&parts),
    );
    let index = json(&parts.join("index.json"));
    let manifest = json(&blob(&parts, &index["manifests"][0]["digest"]));
    for layer in manifest["layers"].as_array().unwrap() {
        let layer = blob(&parts, &layer["digest"]);
        must(
            Command::new("tar")
                .arg("-xpf")
                .arg(layer)
                .arg("-C")
                .arg(&root),
        );
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let config = json(&blob(&parts, &manifest["config"]["digest"]));
    (config["config"].clone(), root)
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_image_runs_as_process_1_without_rights_and_passes_requests_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some(archive) = packages::image(dir.path()).filter(|_| servers::have("node")) else {
        return;
    };
    let (image, root) = unpack(&archive, dir.path());
    assert_eq!(image["User"], crate::support::pod::USER);
    let env = strings(&image["Env"]).into_iter().map(|pair| {
        let (key, value) = pair.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    });
    let container = Container {
        root: root.clone(),
        shared: Vec::new(),
        writable: true,
        command: [strings(&image["Entrypoint"]), strings(&image["Cmd"])].concat(),
        env: env.collect(),
    };

    // Without a configuration it says which file is missing.
    let Some(mut alone) = container.start() else {
        return;
    };
    assert_eq!(alone.ended(STOP_LIMIT).code(), Some(78), "{}", alone.log());
    assert!(
        alone.log().contains("/etc/gateway/gateway.toml"),
        "{}",
        alone.log()
    );

    let config =
        format!("[gateway]\nlisten = [\":{PORT}\"]\n[[route]]\nto = \"http://127.0.0.1:9000\"\n");
    fs::create_dir_all(root.join("etc/gateway")).unwrap();
    fs::write(root.join("etc/gateway/gateway.toml"), config).unwrap();
    let mut pod = container.start().unwrap();
    pod.ready(PORT, "/_gateway/healthz");
    let _server = Server(pod.beside(&["node", servers::NODE_APP, "9000"]).unwrap());
    pod.ready(PORT, "/pid");
    let status = pod.exec(&["/usr/bin/gatewayctl", "status"]);
    let text = said(&status);
    assert!(status.status.success() && text.contains("ready"), "{text}");
    pod.terminate();
    assert_eq!(pod.ended(STOP_LIMIT).code(), Some(0), "{}", pod.log());
}

/// All manifests of a directory below [`MANIFESTS`], checked against the schemas; none, and the test is skipped, where there are
/// no schemas.
fn manifests(of: &str) -> Option<Vec<Value>> {
    if !Path::new(SCHEMAS).join("kubernetes_validate").exists() {
        skip::because("kubernetes-validate is missing: tests/run fetches it from PyPI");
        return None;
    }
    let entries = fs::read_dir(Path::new(MANIFESTS).join(of)).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let printed = must(
        Command::new("python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/support/kubernetes.py"
            ))
            .args(files.filter(|file| file.extension().is_some_and(|ending| ending == "yaml")))
            .env("PYTHONPATH", SCHEMAS),
    );
    Some(serde_json::from_slice(&printed).unwrap())
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    let mut found = manifests.iter().filter(|one| one["kind"] == kind);
    found.next().unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn the_manifests_fit_the_api_the_gateway_and_each_other() {
    let Some(base) = manifests("base") else {
        return;
    };
    for (of, kind) in [("deployment", "Deployment"), ("statefulset", "StatefulSet")] {
        let all = manifests(of).unwrap();
        let kustomization = of_kind(&all, "Kustomization");
        for file in strings(&kustomization["resources"]) {
            let path = Path::new(MANIFESTS).join(of).join(&file);
            assert!(path.exists(), "{file}");
        }
        let workload = of_kind(&all, kind);
        let (labels, pod) = (
            &workload["spec"]["template"]["metadata"]["labels"],
            &workload["spec"]["template"]["spec"],
        );
        let labels_of_service = &of_kind(&base, "Service")["spec"]["selector"];
        let budget = &of_kind(&base, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"];
        let own = &workload["spec"]["selector"]["matchLabels"];
        assert!(
            [own, labels_of_service, budget]
                .iter()
                .all(|one| *one == labels)
        );
        let container = &pod["containers"][0];
        assert_eq!(container["image"], kustomization["images"][0]["name"]);
        let map = &kustomization["configMapGenerator"][0]["name"];
        assert_eq!(pod["volumes"][0]["configMap"]["name"], *map);

        // What the "restricted" standard of Kubernetes asks for, and a root that cannot be written.
        let (of_pod, own) = (&pod["securityContext"], &container["securityContext"]);
        assert_eq!(of_pod["runAsNonRoot"], true);
        assert_eq!(of_pod["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(own["allowPrivilegeEscalation"], false);
        assert_eq!(own["readOnlyRootFilesystem"], true);
        assert_eq!(strings(&own["capabilities"]["drop"]), ["ALL"]);

        let file = Path::new(MANIFESTS).join(of).join("gateway.toml");
        let text = fs::read_to_string(&file).unwrap();
        let nothing = |_: &str| None;
        let config = load_text(&Overrides::default(), &Env(&nothing), &file, Some(text));
        let config = config.unwrap().config;
        let restart = &config.restart;
        let stop = restart.stop_delay.0 + restart.stop_drain.0 + Duration::from_secs(10);
        let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
        assert!(grace > stop, "{grace:?} for a stop of {stop:?}");
        // An endpoint is taken away after as many failures of the probe; then proxies must hear of it.
        let probe = &container["readinessProbe"];
        let noticed =
            probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap();
        assert!(restart.stop_delay.0 >= Duration::from_secs(2 * noticed));
        assert_eq!(config.gateway.listen.len(), 1);
        assert_eq!(container["ports"][0]["containerPort"], PORT);
    }
}

/// The container of the Deployment, as a kubelet starts it, with the Node server of the tests as the application.
fn container_of(deployment: &Value, root: &Path) -> Container {
    fs::create_dir_all(root.join("app")).unwrap();
    fs::create_dir_all(root.join("etc/gateway")).unwrap();
    fs::copy(servers::NODE_APP, root.join("app/server.mjs")).unwrap();
    let config = Path::new(MANIFESTS).join("deployment/gateway.toml");
    fs::copy(config, root.join("etc/gateway/gateway.toml")).unwrap();
    let mut container = Container::with_programs_of_this_machine(root, &["/usr/bin/node"]);
    for (name, program) in [
        ("gateway", env!("CARGO_BIN_EXE_gateway")),
        ("gatewayctl", env!("CARGO_BIN_EXE_gatewayctl")),
    ] {
        fs::copy(program, root.join("usr/bin").join(name)).unwrap();
    }
    let spec = &deployment["spec"]["template"]["spec"]["containers"][0];
    container.command = strings(&spec["command"]);
    let variables = spec["env"].as_array().into_iter().flatten();
    container.env.extend(variables.map(|one| {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        (text("name"), text("value"))
    }));
    // Every container of a cluster has it.
    let host = ("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned());
    container.env.push(host);
    container
}

fn load(pod: &Pod) -> Running {
    let load = Load {
        path: "/pid".into(),
        new_per_second: RATE,
        kept: 6,
        ends_announced: true,
        downloads: 1,
        download: Some(servers::node_download(500_000, Duration::from_secs(1))),
        ..Load::on(SocketAddr::from(([127, 0, 0, 1], PORT)))
    };
    let load = pod.in_network(|| load.start());
    load.flows(Part::New, 10);
    load
}

#[test]
fn a_rolling_update_of_pods_loses_no_request() {
    let Some(all) = manifests("deployment").filter(|_| skip::unless_there("node")) else {
        return;
    };
    let deployment = of_kind(&all, "Deployment");
    let spec = &deployment["spec"]["template"]["spec"];
    let path = |probe: &str| {
        let path = &spec["containers"][0][probe]["httpGet"]["path"];
        path.as_str().unwrap().to_owned()
    };
    let (startup, ready, live) = (
        path("startupProbe"),
        path("readinessProbe"),
        path("livenessProbe"),
    );
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let container = container_of(deployment, &root);

    let Some(mut old) = container.start() else {
        return;
    };
    old.ready(PORT, &startup);
    let status = said(&old.exec(&["/usr/bin/gatewayctl", "status"]));
    assert!(status.contains("kubernetes"), "{status}");
    let write = "require('fs').writeFileSync('/app/new', '')";
    let refused = said(&old.exec(&["/usr/bin/node", "-e", write]));
    assert!(refused.contains("EROFS"), "{refused}");
    let to_old = load(&old);

    // maxSurge: 1, maxUnavailable: 0: the new pod is ready before the old one is told to stop.
    let new = container.start().unwrap();
    new.ready(PORT, &startup);
    let to_new = load(&new);
    old.terminate();

    // The old pod says that it stops; until every proxy has heard of it, clients still come, and are served.
    let stopping = || (old.probe(PORT, &ready) == Some(503)).then_some(());
    wait::until("the old pod is not ready any more", stopping);
    to_old.flows(Part::New, 20);
    assert_eq!(old.probe(PORT, &live), Some(200), "no reason to kill it");
    let report = to_old.stop();
    assert_eq!(report.failures(), 0, "{report}\n{}", old.log());
    let grace = Duration::from_secs(spec["terminationGracePeriodSeconds"].as_u64().unwrap());
    assert_eq!(old.ended(grace).code(), Some(0), "{}", old.log());

    // A change within the pod loses nothing either.
    let restarted = new.exec(&["/usr/bin/gatewayctl", "restart"]);
    assert!(restarted.status.success(), "{}", said(&restarted));
    to_new.flows(Part::New, 10);
    let report = to_new.stop();
    assert_eq!(report.failures(), 0, "{report}\n{}", new.log());
}
