//! What a gateway says of itself while it runs: its pages, its counters, where its users are at home.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use iris_storage::NameKey;
use rustix::thread::{CpuSet, Pid, sched_getaffinity};

use super::{Gateway, lock};
use crate::support::{Metrics, PATIENCE};

impl Gateway {
    /// Bytes of memory that it holds, those of its rings and buffers among them.
    pub fn resident_bytes(&self) -> u64 {
        let id = lock(&self.child).id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
        let kib = word_behind(&status, "VmRSS:").and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("a number of KiB") << 10
    }

    /// Time of cpus that it has used.
    pub fn cpu_time(&self) -> Duration {
        let id = lock(&self.child).id();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
        // Behind the name, which may hold anything, from the third field on; the 14th and the 15th,
        // in hundredths of a second.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let fields = fields.split_ascii_whitespace().skip(14 - 3).take(2);
        let ticks: u64 = fields
            .map(|ticks| ticks.parse::<u64>().expect("a number"))
            .sum();
        Duration::from_millis(10 * ticks)
    }

    /// Its threads: what each is called, and the cpus it may run on.
    pub fn threads(&self) -> Vec<(String, CpuSet)> {
        let cpus_of = |thread: &Path| {
            let id = thread.file_name().and_then(|id| id.to_str()?.parse().ok());
            let id = id.and_then(Pid::from_raw).expect("a thread's id");
            sched_getaffinity(Some(id)).ok()
        };
        self.of_threads(cpus_of)
    }

    /// Its threads: what each is called, and its real-time priority; 0 if it has none.
    pub fn realtime_priorities(&self) -> Vec<(String, u32)> {
        self.of_threads(|thread| {
            let stat = std::fs::read_to_string(thread.join("stat")).ok()?;
            // Behind the name, which may hold anything, from the third field on; it is the 40th.
            let (_, fields) = stat.rsplit_once(')').expect("a name");
            let priority = fields.split_ascii_whitespace().nth(40 - 3);
            Some(priority.and_then(|text| text.parse().ok()).expect("there"))
        })
    }

    /// Of each thread that does not end meanwhile.
    fn of_threads<T>(&self, told: impl Fn(&Path) -> Option<T>) -> Vec<(String, T)> {
        let id = lock(&self.child).id();
        let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
        threads
            .filter_map(|thread| {
                let thread = thread.expect("it runs").path();
                let name = std::fs::read_to_string(thread.join("comm")).ok()?;
                Some((name.trim_end().to_string(), told(&thread)?))
            })
            .collect()
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
        let key = word_behind(&format, "key ").expect("a key");
        let key = u128::from_str_radix(key, 16).expect("a number");
        NameKey::new(key).hash(user).home(self.cores())
    }

    /// So many names of users whose home is this core.
    pub fn users_of(&self, core: usize, stem: &str, count: usize) -> Vec<String> {
        (0..)
            .map(|number| format!("{stem}-{number}"))
            .filter(|name| self.home(name) == core)
            .take(count)
            .collect()
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

pub(super) fn word_behind<'a>(text: &'a str, before: &str) -> Option<&'a str> {
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

pub(super) fn try_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: iris\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
