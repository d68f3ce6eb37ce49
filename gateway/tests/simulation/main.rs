//! The production shard under seeded schedules: logins, takeovers, moves between
//! cores, disconnects at any point, full lanes, a slow and failing store. After
//! each step the invariants hold: nothing acknowledged is lost, order holds for
//! each pair, memory stays in its budget. A failing seed prints itself; run it
//! alone with `IRIS_SIMULATION_SEED=<seed>`.

mod client;
mod ledger;
mod random;
mod steps;
mod store;
mod traces;
mod world;

use steps::{appear, step};
use world::World;

const SEEDS: u64 = 10_000;
const STEPS: usize = 300;

/// What clients do in a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Now and then they read and acknowledge something.
    Anyhow,
    /// They read all that comes, and acknowledge nothing.
    Reading,
    /// They read and acknowledge all that comes.
    Eager,
}

/// Everything takes a step.
fn turn(world: &mut World, pace: Pace) {
    for socket in 0..world.sockets.len() {
        world.receive(socket);
        world.answer_probe(socket);
        if world.random.one_in(20) {
            world.look(socket);
        }
        world.finish(socket);
        world.complete_send(socket);
    }
    for client in 0..world.clients.len() {
        world.client_reads(client, pace != Pace::Anyhow);
        let acks = match pace {
            Pace::Anyhow => world.random.one_in(4),
            Pace::Reading => false,
            Pace::Eager => true,
        };
        if acks
            && !world.sockets[world.clients[client].socket].client_left
            && let Some(bytes) = world.clients[client].ack(pace == Pace::Eager, &mut world.random)
        {
            let socket = world.clients[client].socket;
            world.sockets[socket].inbound.push_back(bytes);
        }
    }
    for core in 0..world.cores() {
        world.next_turn(core);
        world.flush(core);
        world
            .store
            .reply(core, &mut world.shards[core], &mut world.random);
        world.effects(core);
        for to in (0..world.cores()).filter(|to| *to != core) {
            world.move_lane(core, to);
        }
    }
    world.store.commit(&mut world.random);
    world.store.read(&mut world.random);
    world.tick(25);
}

/// Everything that is under way comes to its end; clients read and acknowledge all.
fn settle(world: &mut World) {
    come_to_rest(world, Pace::Eager);
}

fn come_to_rest(world: &mut World, pace: Pace) {
    world.store.fails_one_in = 0;
    world.store.stalled = false;
    world.store.inbox_messages_max = usize::MAX;
    world.moves_fail = false;
    let mut quiet_rounds = 0;
    for _ in 0..20_000 {
        turn(world, pace);
        // Longer than any time-out but the idle one.
        quiet_rounds = if world.store.is_idle() && world.lanes_are_empty() {
            quiet_rounds + 1
        } else {
            0
        };
        if quiet_rounds > 100 {
            return;
        }
    }
    panic!("the world does not come to rest");
}

/// Whoever is online has been sent all there is, though nobody acknowledged any of it.
fn check_drains(world: &World) {
    for (user, message) in world.store.unread() {
        let is_online = world
            .clients
            .iter()
            .any(|client| client.user == user && client.framed && client.welcome && !client.closed);
        assert!(
            !is_online || world.ledger.received.contains(&message),
            "{message:?} waits for an acknowledgement of others"
        );
    }
}

/// Everybody was told the truth about those they follow.
fn check_follows(world: &mut World) {
    for at in 0..world.clients.len() {
        let client = &mut world.clients[at];
        if client.framed && client.welcome && !client.closed {
            let bytes = client.check_follows();
            let socket = client.socket;
            world.sockets[socket].inbound.push_back(bytes);
        }
    }
    settle(world);
}

/// One life of the world.
fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    world.ledger.store_fails = world.store.fails_one_in > 0;
    if world.may_refuse() {
        world.ledger.order_of_repeats_is_open = true;
    }
    for _ in 0..STEPS {
        step(&mut world);
        world.check_budgets();
    }
    world.check_nothing_is_shed();
    // Whoever comes back below is not turned away for what others hold.
    world.input.max.set(400_000);
    world.output.max.set(10_000_000);
    // Logins that are still on their way would be newer than those below.
    settle(&mut world);
    check_follows(&mut world);
    // Everybody comes back, repeats what was not answered, and reads all there is.
    for user in 0..world.accounts.len() {
        let framed = world.accounts[user].framed;
        appear(&mut world, user, framed);
    }
    come_to_rest(&mut world, Pace::Reading);
    check_drains(&world);
    settle(&mut world);
    for account in &world.accounts {
        assert!(
            account.unanswered.is_empty() || !account.framed,
            "sends without an answer: {:?}",
            account.unanswered.keys()
        );
    }
    assert_eq!(
        world.store.depth(),
        0,
        "unread messages are still in the store"
    );
    world.ledger.settle();
    check_follows(&mut world);
    // What was read is gone: the next login finds nothing.
    let deliveries = world.ledger.deliveries;
    for user in 0..world.accounts.len() {
        appear(&mut world, user, true);
    }
    settle(&mut world);
    assert_eq!(
        world.ledger.deliveries, deliveries,
        "read messages came again"
    );
    // Everybody leaves, and after a while nothing is left of them.
    for socket in &mut world.sockets {
        socket.client_left = true;
    }
    settle(&mut world);
    world.tick(61_000);
    world.tick(61_000);
    settle(&mut world);
    for shard in &mut world.shards {
        shard.measure();
        assert!(shard.is_quiet(), "something is under way for ever");
        assert_eq!(
            shard.users_len(),
            0,
            "users about whom nothing is under way"
        );
        assert_eq!(shard.metrics.partial_bytes, 0);
        assert_eq!(shard.metrics.store_pending_bytes, 0);
    }
    world
}

#[test]
fn nothing_acknowledged_is_lost_under_any_schedule() {
    if let Ok(seed) = std::env::var("IRIS_SIMULATION_SEED") {
        run(seed.parse().expect("a number"));
        return;
    }
    let threads = 2;
    let totals: Vec<(u64, u64, u64)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let mut totals = (0, 0, 0);
                    for seed in (worker..SEEDS).step_by(threads as usize) {
                        let world =
                            std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
                                eprintln!("the failing seed: IRIS_SIMULATION_SEED={seed}");
                                std::panic::resume_unwind(panic)
                            });
                        totals.0 += world.ledger.deliveries;
                        totals.1 += world.ledger.promised.len() as u64;
                        totals.2 += world.ledger.repeats;
                    }
                    totals
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("its seed is printed above"))
            .collect()
    });
    let (deliveries, promised, repeats) = totals.into_iter().fold((0, 0, 0), |sum, part| {
        (sum.0 + part.0, sum.1 + part.1, sum.2 + part.2)
    });
    println!("{SEEDS} seeds: {deliveries} deliveries, {promised} promises kept, {repeats} repeats");
    assert!(promised > SEEDS, "the schedules hardly sent anything");
}
