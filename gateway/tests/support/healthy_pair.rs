//! Two users who exchange messages all the time, whatever others do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use iris_protocol::Outcome;

use super::{Framed, Gateway};

/// Two users, one on each core, who must not notice anything.
pub struct HealthyPair {
    ends: Arc<AtomicBool>,
    exchanging: JoinHandle<u64>,
}

impl HealthyPair {
    /// They begin.
    pub fn start(gateway: &Gateway) -> HealthyPair {
        let mut pair = [0, 1].map(|core| {
            let user = gateway.users_of(core, "healthy", 1).remove(0);
            (Framed::login(gateway.address(), &user), user)
        });
        let ends = Arc::new(AtomicBool::new(false));
        let exchanging = thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                let mut exchanged = 0u64;
                while !ends.load(Ordering::SeqCst) {
                    // Each is the sender in turn.
                    pair.reverse();
                    let [(from, _), (to, target)] = &mut pair;
                    exchanged += 1;
                    let sequence = from.send(target, &exchanged.to_be_bytes());
                    assert_eq!(to.takes().payload, exchanged.to_be_bytes());
                    let outcome = from.outcome(sequence);
                    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
                    thread::sleep(Duration::from_millis(1));
                }
                exchanged
            }
        });
        HealthyPair { ends, exchanging }
    }

    /// Both are well to the end.
    pub fn end(self) {
        self.ends.store(true, Ordering::SeqCst);
        let exchanged = self.exchanging.join().expect("the pair noticed nothing");
        assert!(exchanged > 0);
    }
}
