use std::time::Instant;
static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
pub(crate) struct Diag { at: Instant, stat: (u64, u64) }
fn stat() -> (u64, u64) {
    let s = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut w = s.split_whitespace().map(|w| w.parse::<u64>().unwrap_or(0));
    (w.next().unwrap_or(0), w.next().unwrap_or(0))
}
impl Diag {
    pub(crate) fn begin() -> Diag { START.get_or_init(Instant::now); Diag { at: Instant::now(), stat: stat() } }
    pub(crate) fn end(self, what: &str, n: u64) {
        let took = self.at.elapsed();
        if took.as_micros() > 4000 {
            let (cpu, wait) = stat();
            let t = START.get_or_init(Instant::now).elapsed().as_millis();
            eprintln!("DIAG {t} {what} n={n} wall {} cpu {} runq {}", took.as_micros(), (cpu - self.stat.0) / 1000, (wait - self.stat.1) / 1000);
        }
    }
}
