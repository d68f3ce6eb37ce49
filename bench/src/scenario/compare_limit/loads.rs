//! The loads that a gateway is held against the limit with.

use clap::Args;

use crate::engine::Sizes;
use crate::scenario::drive::Load;
use crate::scenario::flags::Shape;

/// Connections, and messages of each in flight, that every shape but bursts is driven with: few
/// turns with little in them, more of the same, deep queues, deeper ones, many sockets.
const QUEUES: [(u32, u32); 5] = [(200, 1), (1_000, 1), (1_000, 16), (1_000, 64), (10_000, 1)];
/// The same for messages that are longer.
const LONG_QUEUES: [(u32, u32); 2] = [(1_000, 1), (200, 4)];
/// How long these are. The last is what the classic protocol takes at most.
const LONG_BYTES: [u32; 4] = [1_024, 4_096, 16_384, 65_535];
/// Messages of one burst.
const BURST: u32 = 50;
/// What a load has that is asked for without it.
const CONNECTIONS: u32 = 1_000;
/// See `CONNECTIONS`.
const IN_FLIGHT: u32 = 1;
/// See `CONNECTIONS`.
const BYTES: u32 = 64;

/// Which loads are driven.
#[derive(Debug, Args)]
#[command(next_help_heading = "Loads")]
pub(crate) struct LoadsArgs {
    /// Only loads of these shapes. Alone it chooses from the list that is driven without any of
    /// these four: gather, reply and eager with 200 x 1, 1,000 x 1, 1,000 x 16, 1,000 x 64 and
    /// 10,000 x 1 connections and messages in flight, of 64 bytes; reply with 1,000 x 1 and 200 x 4
    /// of 1,024, 4,096, 16,384 and 65,535 bytes; bursts of 50 among 1,000 users.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    shape: Vec<Shape>,
    /// Drive loads with so many connections. With this, --in-flight or --size every combination
    /// is driven of what is given, and else of gather, reply and eager, 1,000 connections, 1
    /// message in flight (50 in bursts) and 64 bytes.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    connections: Vec<u32>,
    /// Drive loads with so many messages of each connection in flight.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: Vec<u32>,
    /// Drive loads with messages of so many bytes, or of a mix, as in
    /// 0.8:64,0.15:1024,0.05:16384. Several times for several loads.
    #[arg(long, value_name = "SIZES", value_parser = clap::value_parser!(Sizes))]
    size: Vec<Sizes>,
}

impl LoadsArgs {
    /// The loads, in the order in which they are driven.
    pub(super) fn loads(&self) -> Vec<Load> {
        if self.connections.is_empty() && self.in_flight.is_empty() && self.size.is_empty() {
            let mut loads = list();
            if !self.shape.is_empty() {
                loads.retain(|load| self.shape.contains(&load.shape));
            }
            return loads;
        }
        let shapes = or(&self.shape, &[Shape::Gather, Shape::Reply, Shape::Eager]);
        let mut loads = Vec::new();
        for shape in shapes {
            let in_flight = if shape == Shape::Bursts {
                BURST
            } else {
                IN_FLIGHT
            };
            for connections in or(&self.connections, &[CONNECTIONS]) {
                for in_flight in or(&self.in_flight, &[in_flight]) {
                    for sizes in or(&self.size, &[BYTES.into()]) {
                        loads.push(Load {
                            shape,
                            connections,
                            in_flight,
                            sizes,
                        });
                    }
                }
            }
        }
        loads
    }
}

/// What is given, or what is driven without it.
fn or<T: Clone>(given: &[T], without: &[T]) -> Vec<T> {
    if given.is_empty() { without } else { given }.to_vec()
}

/// All loads.
fn list() -> Vec<Load> {
    let mut loads = Vec::new();
    for shape in [Shape::Gather, Shape::Reply, Shape::Eager] {
        let load = |(connections, in_flight)| Load::new(shape, connections, in_flight, BYTES);
        loads.extend(QUEUES.map(load));
    }
    for bytes in LONG_BYTES {
        let load =
            |(connections, in_flight)| Load::new(Shape::Reply, connections, in_flight, bytes);
        loads.extend(LONG_QUEUES.map(load));
    }
    loads.push(Load::new(Shape::Bursts, CONNECTIONS, BURST, BYTES));
    loads
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        loads: LoadsArgs,
    }

    fn names(line: &str) -> Vec<String> {
        let words = ["x"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).expect("sound flags");
        line.loads.loads().iter().map(Load::name).collect()
    }

    #[test]
    fn without_flags_all_shapes_and_sizes_are_driven() {
        let all = names("");
        assert_eq!(all.len(), 3 * 5 + 2 * 4 + 1);
        for load in [
            "gather 200 x 1, 64 B",
            "reply 1000 x 64, 64 B",
            "eager 10000 x 1, 64 B",
            "reply 200 x 4, 65535 B",
            "bursts 1000 x 50, 64 B",
        ] {
            assert!(all.iter().any(|name| name == load), "{load} of {all:?}");
        }
    }

    #[test]
    fn a_shape_alone_chooses_from_the_list() {
        assert_eq!(names("--shape bursts"), ["bursts 1000 x 50, 64 B"]);
        assert_eq!(names("--shape gather,eager").len(), 10);
    }

    #[test]
    fn what_is_given_is_combined() {
        assert_eq!(
            names("--shape reply --connections 200,1000 --in-flight 4"),
            ["reply 200 x 4, 64 B", "reply 1000 x 4, 64 B"]
        );
        assert_eq!(
            names("--size 1024").first().map(String::as_str),
            Some("gather 1000 x 1, 1024 B")
        );
        assert_eq!(
            names("--shape bursts --connections 100 --size 64 --size 0.5:64,0.5:128"),
            ["bursts 100 x 50, 64 B", "bursts 100 x 50, 0.5:64,0.5:128 B"]
        );
    }
}
