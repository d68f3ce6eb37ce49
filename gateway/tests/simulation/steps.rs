//! What may happen at random in a schedule, one thing at a time: clients come, send, acknowledge, ask, leave and talk
//! nonsense; sockets, lanes, store and time move; the process is killed, or asked to end.

use crate::client::Client;
use crate::world::{OVERSIZED_BYTES, World};
use crate::{Pace, turn};

/// The longest segment that is received at once: an oversized message.
const SEGMENT_BYTES_MAX: usize = OVERSIZED_BYTES + 100;

/// One random thing happens.
pub fn step(world: &mut World) {
    let sockets = world.sockets.len();
    let socket = world.random.below(sockets);
    match world.random.below(24) {
        0 => client_appears(world),
        1..=3 => client_sends(world),
        4 => client_acks(world),
        5 => client_leaves(world),
        6 => client_logs_in_again(world),
        7 | 8 if sockets > 0 => world.receive(socket),
        9 if sockets > 0 => {
            for socket in 0..sockets {
                world.receive(socket);
            }
        }
        10 if !world.clients.is_empty() => {
            let client = world.random.below(world.clients.len());
            world.client_reads(client, false);
        }
        11 => {
            let core = world.random.below(world.cores());
            world.next_turn(core);
            world.flush(core);
        }
        12 | 13 => {
            for core in 0..world.cores() {
                world.flush(core);
            }
            for socket in 0..sockets {
                if world.random.one_in(2) {
                    world.complete_send(socket);
                }
            }
        }
        14 if sockets > 0 => {
            world.answer_probe(socket);
            if world.random.one_in(4) {
                world.look(socket);
            }
        }
        15 => {
            for socket in 0..sockets {
                world.finish(socket);
            }
        }
        16 => {
            let (from, to) = (
                world.random.below(world.cores()),
                world.random.below(world.cores()),
            );
            if from != to {
                world.move_lane(from, to);
            }
        }
        17 => {
            if world.random.one_in(60) {
                world.store.stalled = !world.store.stalled;
            }
            world.store.commit(&mut world.random);
        }
        18 => {
            world.store.read(&mut world.random);
            let core = world.random.below(world.cores());
            world
                .store
                .reply(core, &mut world.shards[core], &mut world.random);
            world.effects(core);
        }
        19 => {
            let ms = if world.random.one_in(10) {
                2_500
            } else {
                world.random.next() % 40
            };
            world.tick(ms);
        }
        20 => client_asks(world),
        21 if world.random.one_in(12) => client_talks_nonsense(world),
        22 if world.random.one_in(40) => world.crash(),
        23 if world.random.one_in(40) => drain(world),
        _ => {}
    }
}

/// A user connects, as its own kind of client or, to read only, as the other.
fn client_appears(world: &mut World) {
    let user = world.random.below(world.accounts.len());
    let framed = world.accounts[user].framed != world.random.one_in(6);
    appear(world, user, framed);
}

pub fn appear(world: &mut World, user: usize, framed: bool) {
    let socket = world.connect();
    let mut client = Client::new(user, framed, socket);
    let login = client.login(user, &mut world.accounts[user]);
    world.accounts[user].client = Some(world.clients.len());
    world.clients.push(client);
    push_split(world, socket, login);
}

/// Bytes go out in segments that end anywhere, but for classic logins, which end
/// where their segment ends.
fn push_split(world: &mut World, socket: usize, bytes: Vec<u8>) {
    let mut rest = &bytes[..];
    let whole = rest.first() == Some(&0x01);
    while !rest.is_empty() {
        let len = if whole {
            rest.len()
        } else if world.random.one_in(2) {
            rest.len().min(SEGMENT_BYTES_MAX)
        } else {
            1 + world.random.below(rest.len().min(SEGMENT_BYTES_MAX))
        };
        world.sockets[socket]
            .inbound
            .push_back(rest[..len].to_vec());
        rest = &rest[len..];
    }
}

fn client_sends(world: &mut World) {
    let user = world.random.below(world.accounts.len());
    let target = world.random.below(world.accounts.len());
    let Some(at) = world.accounts[user].client else {
        return;
    };
    let client = &mut world.clients[at];
    if client.closed || client.framed != world.accounts[user].framed || client.user != user {
        return;
    }
    if world.accounts[user].unanswered.len() > 40 {
        return;
    }
    let socket = client.socket;
    let mut bytes = client.send(&mut world.accounts[user], at, target, &mut world.random);
    if world.random.one_in(8) {
        // A burst.
        for _ in 0..world.random.below(40) {
            let target = world.random.below(world.accounts.len());
            let account = &mut world.accounts[user];
            bytes.extend(world.clients[at].send(account, at, target, &mut world.random));
        }
    }
    push_split(world, socket, bytes);
}

/// One of the clients there ever were; if there were none, none has this number.
fn any_client(world: &mut World) -> usize {
    let clients = world.clients.len();
    world.random.below(clients)
}

/// A client stands for no user any more.
fn nobody_uses(world: &mut World, at: usize) {
    for account in &mut world.accounts {
        if account.client == Some(at) {
            account.client = None;
        }
    }
}

fn client_acks(world: &mut World) {
    let at = any_client(world);
    if let Some(client) = world.clients.get_mut(at)
        && !world.sockets[client.socket].client_left
        && let Some(bytes) = client.ack(false, &mut world.random)
    {
        let socket = client.socket;
        push_split(world, socket, bytes);
    }
}

/// A client is gone, politely or not.
fn client_leaves(world: &mut World) {
    let at = any_client(world);
    if let Some(client) = world.clients.get(at)
        && world.random.one_in(3)
    {
        let socket = client.socket;
        world.sockets[socket].client_left = true;
        if world.random.one_in(2) {
            let has_arrived = world.random.one_in(2);
            let is_told = !world.random.one_in(3);
            world.sockets[socket].reset(has_arrived, is_told);
        }
        nobody_uses(world, at);
    }
}

fn client_asks(world: &mut World) {
    let at = any_client(world);
    let user = world.random.below(world.accounts.len());
    if let Some(client) = world.clients.get_mut(at)
        && client.framed
        && !client.closed
        && !world.sockets[client.socket].client_left
    {
        let bytes = client.ask(user, &mut world.random);
        let socket = client.socket;
        push_split(world, socket, bytes);
    }
}

fn client_talks_nonsense(world: &mut World) {
    let at = any_client(world);
    if let Some(client) = world.clients.get_mut(at)
        && !world.sockets[client.socket].client_left
    {
        let bytes = client.garbage(&mut world.random);
        let socket = client.socket;
        world.sockets[socket].inbound.push_back(bytes);
        nobody_uses(world, at);
    }
}

/// The gateway is asked to end, does, and another one begins on the same store.
fn drain(world: &mut World) {
    world.store.stalled = false;
    world.begin_drain();
    for _ in 0..20_000 {
        if world.random.one_in(50) {
            client_appears(world);
        }
        turn(world, Pace::Anyhow);
        if world.end_drain() {
            return;
        }
    }
    panic!("the drain does not end");
}

/// A classic connection becomes another user, or the same again.
fn client_logs_in_again(world: &mut World) {
    let user = world.random.below(world.accounts.len());
    let Some(at) = world.accounts[user].client else {
        return;
    };
    let next = world.random.below(world.accounts.len());
    let client = &mut world.clients[at];
    if client.framed || world.accounts[next].framed {
        return;
    }
    let mut login = client.login(next, &mut world.accounts[next]);
    let socket = client.socket;
    world.accounts[user].client = None;
    world.accounts[next].client = Some(at);
    while world.random.one_in(3) {
        // Pipelined: the sends end the login's name.
        let target = world.random.below(world.accounts.len());
        let account = &mut world.accounts[next];
        login.extend(world.clients[at].send(account, at, target, &mut world.random));
    }
    push_split(world, socket, login);
}
