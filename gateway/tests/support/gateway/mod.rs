//! A gateway as a process: started, waited for, stopped, killed, started again on its data.
//!
//! Invariants: the process is ended when its [`Gateway`] is dropped, and its lifetime after its
//! start whatever the test does, so that clients that wait for it in vain see their connection end.

mod asking;
mod program;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CpuSet;

use super::{Disk, Metrics, PATIENCE};
use asking::{try_get, word_behind};
use program::Plan;

pub use asking::get;
pub use program::{iris, run};

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

    /// The same for a test that takes longer than others.
    pub fn serving_for(lifetime: Duration, arguments: &[&str]) -> Gateway {
        let common = ["--cores", "2", "--max-connections", "4096"];
        let mut plan = Plan::new(&[&common, arguments].concat(), &[], None);
        plan.lifetime = lifetime;
        let mut gateway = Gateway::spawn(plan);
        gateway.wait_until_ready();
        gateway
    }

    /// Ready for clients, with these cores.
    pub fn serving_on_cores(cores: &str) -> Gateway {
        Gateway::started(&["--cores", cores, "--max-connections", "64"], &[], None)
    }

    /// Two cores, with so many descriptors and not one more.
    pub fn serving_with_descriptors(descriptors: u32, arguments: &[&str]) -> Gateway {
        let mut common = vec!["--cores", "2"];
        common.extend(arguments);
        Gateway::started(&common, &[], Some(format!("ulimit -n {descriptors}")))
    }

    /// Two cores, started by somebody whose files everybody may read and write.
    pub fn serving_without_umask() -> Gateway {
        let common = ["--cores", "2", "--max-connections", "64"];
        Gateway::started(&common, &[], Some("umask 000".to_owned()))
    }

    /// The same on a disk that does as it is told.
    pub fn serving_on(disk: &Disk, arguments: &[&str]) -> Gateway {
        Gateway::serving_on_for(disk, None, arguments)
    }

    /// The same, for a test that takes longer than others.
    pub fn serving_on_for(disk: &Disk, lifetime: Option<Duration>, arguments: &[&str]) -> Gateway {
        let mut common = vec!["--max-connections", "4096"];
        if !arguments.contains(&"--cores") {
            common.extend(["--cores", "2"]);
        }
        common.extend(arguments);
        let mut plan = Plan::new(&common, &[], None);
        plan.lifetime = lifetime.unwrap_or(plan.lifetime);
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
        before: Option<String>,
    ) -> Gateway {
        let plan = Plan::new(arguments, environment, before);
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
            let lifetime = plan.lifetime;
            move || {
                if held.recv_timeout(lifetime) == Err(RecvTimeoutError::Timeout) {
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

    /// Nobody reads its log any more: the next line but one finds a closed pipe.
    pub fn log_is_closed(&mut self) {
        self.stderr = mpsc::channel().1;
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

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}
