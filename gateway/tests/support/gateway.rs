//! A gateway as a process: started, waited for, asked, stopped, killed, started again on its data.
//!
//! Invariants: the process is ended when its [`Gateway`] is dropped, and [`LIFETIME_MAX`] after its
//! start whatever the test does, so that clients that wait for it in vain see their connection end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CpuSet;

use super::{Disk, Metrics, PATIENCE};

/// No test needs a process for longer.
const LIFETIME_MAX: Duration = Duration::from_secs(120);

/// The program, without the variables of whoever runs the tests.
pub fn iris() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    without_variables(&mut command);
    command
}

/// Runs a program to its end, which must come in time.
pub fn run(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let stdout = read_aside(child.stdout.take().expect("piped"));
    let stderr = read_aside(child.stderr.take().expect("piped"));
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match child.try_wait().expect("a child") {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            ended => break ended,
        }
    };
    if ended.is_none() {
        // Before anything can fail: it must not stay behind.
        let _ = child.kill();
        let _ = child.wait();
    }
    let stderr = stderr.join().expect("read");
    let text = String::from_utf8_lossy(&stderr);
    Output {
        status: ended.unwrap_or_else(|| panic!("it did not end: {text}")),
        stdout: stdout.join().expect("read"),
        stderr,
    }
}

fn read_aside(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe");
        bytes
    })
}

fn without_variables(command: &mut Command) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("IRIS_")) {
        command.env_remove(name);
    }
    command.env_remove("NOTIFY_SOCKET");
}

/// How to start a gateway, the same way each time.
#[derive(Clone)]
struct Plan {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// Limit of descriptors, soft and hard.
    descriptors: Option<u32>,
    /// The data folder is a tmpfs of this size that only the process sees.
    tmpfs: Option<String>,
    folder: Arc<tempfile::TempDir>,
}

/// A running gateway; killed when it is dropped.
pub struct Gateway {
    child: Arc<Mutex<Child>>,
    stderr: Receiver<String>,
    seen: Vec<String>,
    plan: Plan,
    address: Option<SocketAddr>,
    admin: Option<String>,
    _leash: Sender<()>,
}

impl Gateway {
    /// Two cores, whatever the machine has, ready for clients.
    pub fn serving(arguments: &[&str]) -> Gateway {
        let mut common = vec!["--cores", "2"];
        if !arguments.contains(&"--max-connections") {
            common.extend(["--max-connections", "4096"]);
        }
        common.extend(arguments);
        Gateway::started(&common, &[], None)
    }

    /// The same with so many descriptors and not one more.
    pub fn serving_with_descriptors(descriptors: u32, arguments: &[&str]) -> Gateway {
        let mut common = vec!["--cores", "2"];
        common.extend(arguments);
        Gateway::started(&common, &[], Some(descriptors))
    }

    /// The same on a disk that does as it is told.
    pub fn serving_on(disk: &Disk, arguments: &[&str]) -> Gateway {
        let mut common = vec!["--cores", "2", "--max-connections", "4096"];
        common.extend(arguments);
        let mut plan = Plan::new(&common, &[], None);
        // It must be there before the process is, for the disk to know it.
        std::fs::create_dir(plan.data()).expect("made");
        plan.environment = disk.environment(&plan.data());
        let mut gateway = Gateway::spawn(plan);
        gateway.wait_until_ready();
        gateway
    }

    /// The same on a small disk of its own, which ends with it. Needs `unshare -rm`.
    pub fn serving_on_tmpfs(size: &str, arguments: &[&str]) -> Gateway {
        let mut common = vec!["--cores", "2", "--max-connections", "4096"];
        common.extend(arguments);
        let mut plan = Plan::new(&common, &[], None);
        std::fs::create_dir(plan.data()).expect("made");
        plan.tmpfs = Some(size.to_owned());
        let mut gateway = Gateway::spawn(plan);
        gateway.wait_until_ready();
        gateway
    }

    /// So many cores on one cpu.
    pub fn serving_on_one_cpu(cores: usize) -> Gateway {
        // A child has the cpus of the thread that starts it.
        std::thread::spawn(move || {
            let allowed = rustix::thread::sched_getaffinity(None).expect("known");
            let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
            let mut one = CpuSet::new();
            one.set(first.expect("it runs on one"));
            rustix::thread::sched_setaffinity(None, &one).expect("one of its own");
            let cores = cores.to_string();
            Gateway::started(&["--cores", &cores, "--max-connections", "256"], &[], None)
        })
        .join()
        .expect("it serves")
    }

    fn started(
        arguments: &[&str],
        environment: &[(&str, &str)],
        descriptors: Option<u32>,
    ) -> Gateway {
        let plan = Plan::new(arguments, environment, descriptors);
        let mut gateway = Gateway::spawn(plan);
        gateway.wait_until_ready();
        gateway
    }

    /// Starts one with a core and no place for many; does not wait for it.
    pub fn start_small(arguments: &[&str], environment: &[(&str, &str)]) -> Gateway {
        let common = ["--cores", "1", "--max-connections", "64"];
        Gateway::spawn(Plan::new(&[&common, arguments].concat(), environment, None))
    }

    fn spawn(plan: Plan) -> Gateway {
        let mut child = plan.command().spawn().expect("iris starts");
        let (sender, stderr) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let child = Arc::new(Mutex::new(child));
        let (leash, held) = mpsc::channel::<()>();
        std::thread::spawn({
            let child = Arc::clone(&child);
            move || {
                if held.recv_timeout(LIFETIME_MAX) == Err(RecvTimeoutError::Timeout) {
                    eprintln!("a gateway outlived its test's time and is killed");
                    // Already gone is as good.
                    let _ = lock(&child).kill();
                }
            }
        });
        Gateway {
            child,
            stderr,
            seen: Vec::new(),
            plan,
            address: None,
            admin: None,
            _leash: leash,
        }
    }

    fn wait_until_ready(&mut self) {
        let admin = self.logged("administration on http://");
        self.admin = word_behind(&admin, "http://").map(|word| word.trim_end_matches(':').into());
        let serving = self.logged("serving listen=");
        let address = word_behind(&serving, "listen=").expect("an address");
        self.address = Some(address.parse().expect("one address"));
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("it is ready")
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.plan.data()
    }

    /// The data folder as the process sees it, where that is not what others see.
    pub fn data_inside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", lock(&self.child).id()));
        let data = self.data();
        root.join(data.strip_prefix("/").expect("an absolute path"))
    }

    /// Bytes of memory that it holds, those of its rings and buffers among them.
    pub fn resident_bytes(&self) -> u64 {
        let id = lock(&self.child).id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
        let kib = word_behind(&status, "VmRSS:").and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("a number of KiB") << 10
    }

    /// What it logged, as far as anyone waited for it.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Waits for a log line that holds `part`.
    pub fn logged(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stderr.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {part:?} in {:#?}", self.seen),
            }
        }
    }

    /// All further lines, until it ends.
    pub fn rest_of_log(&self) -> Vec<String> {
        self.stderr.iter().collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // Under the lock nobody else waits for it, so the id is its own.
        let child = lock(&self.child);
        let pid = Pid::from_raw(child.id().try_into().expect("a pid")).expect("not 0");
        kill_process(pid, signal).expect("the process is there");
    }

    /// Whether it has ended, and how.
    pub fn try_ended(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().expect("a child")
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.try_ended() {
                self.seen.extend(self.stderr.try_iter());
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end: {:#?}",
                self.seen
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and a drain without complaint.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ended().code(), Some(0), "{:#?}", self.seen);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended();
    }

    /// Starts it again on the same data, after its end.
    pub fn start_again(&mut self) {
        self.start_again_at("127.0.0.1:0");
    }

    /// The same, on an address clients know already.
    pub fn start_again_at(&mut self, address: &str) {
        assert!(self.try_ended().is_some(), "it still runs");
        let mut plan = self.plan.clone();
        let listen = plan.arguments.iter().position(|flag| flag == "--listen");
        plan.arguments[listen.expect("always given") + 1] = address.to_owned();
        *self = Gateway::spawn(plan);
        self.wait_until_ready();
    }

    /// Status code and body of a page of its administration.
    pub fn page(&self, path: &str) -> (u16, String) {
        get(self.admin.as_deref().expect("it is ready"), path)
    }

    /// Its counters now; cores show theirs once a second.
    pub fn metrics(&self) -> Metrics {
        let (status, page) = self.page("/metrics");
        assert_eq!(status, 200);
        Metrics::parse(&page)
    }

    /// Waits until the counters are as they should be.
    pub fn metrics_when(&self, what: &str, good: impl Fn(&Metrics) -> bool) -> Metrics {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics();
            if good(&metrics) {
                return metrics;
            }
            assert!(
                Instant::now() < deadline,
                "{what} in vain; not zero: {:#?}",
                metrics.not_zero()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The cores' number of the home of a user.
    pub fn home(&self, user: &str) -> usize {
        let format = std::fs::read_to_string(self.data().join("FORMAT")).expect("a data folder");
        let seed = word_behind(&format, "seed ").expect("a seed");
        let seed = u64::from_str_radix(seed, 16).expect("a number");
        iris_storage::user_hash(seed, user).home(self.cores())
    }

    /// So many names of users whose home is this core.
    pub fn users_of(&self, core: usize, stem: &str, count: usize) -> Vec<String> {
        (0..)
            .map(|number| format!("{stem}-{number}"))
            .filter(|name| self.home(name) == core)
            .take(count)
            .collect()
    }

    /// What helps whoever reads of a test that failed.
    fn tell(&mut self) {
        self.seen.extend(self.stderr.try_iter());
        eprintln!("the gateway's log: {:#?}", self.seen);
        let ended = self.try_ended();
        let page = self.admin.as_deref().filter(|_| ended.is_none());
        match page.and_then(|admin| try_get(admin, "/metrics").ok()) {
            Some(answer) => {
                let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                eprintln!("its counters: {:#?}", Metrics::parse(body).not_zero());
            }
            None => eprintln!("it gives no counters; its end: {ended:?}"),
        }
    }

    fn cores(&self) -> usize {
        let flag = self
            .plan
            .arguments
            .iter()
            .rposition(|flag| flag == "--cores");
        self.plan.arguments[flag.expect("always given") + 1]
            .parse()
            .expect("a number")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        let mut child = lock(&self.child);
        // Already gone is as good.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Plan {
    fn new(arguments: &[&str], environment: &[(&str, &str)], descriptors: Option<u32>) -> Plan {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let data = folder.path().join("data");
        let data = data.to_str().expect("a path in UTF-8");
        let common = [
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data",
            data,
        ];
        let owned = |text: &&str| (*text).to_owned();
        Plan {
            arguments: common.iter().chain(arguments).map(owned).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| (owned(name), owned(value)))
                .collect(),
            descriptors,
            tmpfs: None,
            folder,
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self) -> Command {
        let mut command = match (self.descriptors, &self.tmpfs) {
            (None, None) => Command::new(env!("CARGO_BIN_EXE_iris")),
            (_, Some(size)) => {
                let mut unshare = Command::new("unshare");
                let data = self.data();
                let script = format!(
                    "mount -t tmpfs -o size={size} none {} && exec \"$0\" \"$@\"",
                    data.display()
                );
                unshare.args(["-rm", "sh", "-c", &script, env!("CARGO_BIN_EXE_iris")]);
                unshare
            }
            (Some(descriptors), None) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script, env!("CARGO_BIN_EXE_iris")]);
                shell
            }
        };
        without_variables(&mut command);
        command
            .arg("serve")
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn word_behind<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_whitespace().next()
}

/// Status code and body of a GET.
pub fn get(address: &str, path: &str) -> (u16, String) {
    let answer = try_get(address, path).expect("answered");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    (
        status,
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned(),
    )
}

fn try_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: iris\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
