//! Network namespaces, and hosts made of them with a slow link in between.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
};

use crate::workload;

/// Whether namespaces can be joined: `ip` is installed.
pub fn can_be_joined() -> bool {
    Command::new("ip").arg("-V").output().is_ok()
}

/// A process that holds a network namespace, which ends with it.
pub struct Namespace(Child);

impl Namespace {
    /// A new one.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> Self {
        let mut child = Command::new("unshare");
        child.args(["--net", "sh", "-c", "echo; exec sleep 600"]).stdout(Stdio::piped());
        let mut child = child.spawn().expect("unshare is part of util-linux");
        let mut said = [0];
        child.stdout.take().expect("it is piped").read_exact(&mut said).expect("namespaces can be made");
        Self(child)
    }

    /// What runs a program inside, before its name and arguments: a program and its arguments.
    pub fn enter(&self) -> (&'static str, [String; 2]) {
        ("nsenter", [format!("--net=/proc/{}/ns/net", self.0.id()), "--".to_owned()])
    }

    /// A command inside.
    pub fn command(&self, program: &str) -> Command {
        let (enter, arguments) = self.enter();
        let mut command = Command::new(enter);
        command.args(arguments).arg(program);
        command
    }

    /// Runs `ip ARGUMENTS` inside.
    ///
    /// # Panics
    /// If it fails.
    pub fn ip(&self, arguments: &str) {
        let status =
            self.command("ip").args(arguments.split(' ')).status().expect("nsenter is part of util-linux");
        assert!(status.success(), "ip {arguments}: {status}");
    }

    /// What an interface has carried: bytes and packets sent, bytes and packets received.
    ///
    /// # Panics
    /// If it is not there.
    pub fn traffic(&self, interface: &str) -> [u64; 4] {
        let output = self.command("ip").args(["-s", "-j", "link", "show", interface]).output();
        let output = output.expect("nsenter is part of util-linux");
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).expect("ip knows JSON");
        let stats = &links[0]["stats64"];
        let number = |direction: &str, what: &str| stats[direction][what].as_u64().expect("it is counted");
        [("tx", "bytes"), ("tx", "packets"), ("rx", "bytes"), ("rx", "packets")]
            .map(|(direction, what)| number(direction, what))
    }

    /// Joins it to another one by interfaces of these names.
    ///
    /// # Panics
    /// If that fails.
    pub fn join(&self, name: &str, other: &Self, other_name: &str) {
        let namespace = other.0.id();
        self.ip(&format!("link add {name} type veth peer name {other_name} netns {namespace}"));
        self.ip(&format!("link set {name} up"));
        other.ip(&format!("link set {other_name} up"));
    }

    /// Starts a workload inside, and waits until it says `ready`.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(&self, workload: &str, arguments: &[&str]) -> Started {
        let program = workload::path(workload);
        let mut command = self.command(program.to_str().expect("paths of workloads are text"));
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).spawn().expect("nsenter is part of util-linux");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("it is piped"))
            .read_line(&mut line)
            .expect("it says something");
        assert_eq!(line.trim(), "ready");
        Started(child)
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// A process that ends when it is dropped.
pub struct Started(Child);

impl Started {
    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it failed.
    pub fn succeeded(&mut self) {
        assert!(self.0.wait().expect("it is our child").success());
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn end(child: &mut Child) {
    _ = child.kill();
    _ = child.wait();
}

/// Two hosts and a slow link between them, on which some frames are lost; on the other one `sockets serve` listens.
pub struct Hosts {
    /// The one that asks.
    pub here: Namespace,
    _there: Namespace,
    _link_host: Namespace,
    _link: Started,
    server: Started,
}

impl Hosts {
    /// The address of the other one.
    pub const THERE: &str = "10.99.0.2";
    /// The port that is listened at there.
    pub const PORT: &str = "5000";

    /// A link that takes `delay_us` each way, and loses each `lose`-th frame with data that is sent there; 0: none.
    ///
    /// # Panics
    /// If they cannot be made.
    pub fn new(delay_us: u64, lose: u64) -> Self {
        let [here, link_host, there] = [(); 3].map(|()| Namespace::new());
        here.join("here", &link_host, "link0");
        there.join("there", &link_host, "link1");
        here.ip("addr add 10.99.0.1/24 dev here");
        there.ip(&format!("addr add {}/24 dev there", Self::THERE));
        let link = link_host.start("link", &[&delay_us.to_string(), &lose.to_string(), "link0", "link1"]);
        let server = there.start("sockets", &["serve", Self::THERE, Self::PORT]);
        Self { here, _there: there, _link_host: link_host, _link: link, server }
    }

    /// Waits until the server has ended, after its one connection.
    ///
    /// # Panics
    /// If it failed.
    pub fn server_succeeded(&mut self) {
        self.server.succeeded();
    }
}
