//! Which cpus run a core.
//!
//! Written as `all`, a number (`4`) or a list of cpus (`0,2,4-7`; one cpu is `3,` or `[3]`).

use std::fmt;

/// Most cores of one gateway: a lane lies between every ordered pair of them, so their number
/// grows with its square.
const CORES_MAX: usize = 1024;

/// Which cpus run a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// One core on each cpu this process may use.
    All,
    /// This many cores; above the number of cpus they share them (useful in tests).
    Count(usize),
    /// One core on each of these cpus, by their numbers in the kernel.
    List(Vec<usize>),
}

impl Cores {
    /// Reads `all`, a number or a list.
    ///
    /// # Errors
    /// A sentence for people: what is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Cores, String> {
        let text = text.trim();
        if text == "all" {
            return Ok(Cores::All);
        }
        if let Ok(count) = text.parse::<usize>() {
            return Ok(Cores::Count(within(count)?));
        }
        let mut cpus = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
                return Err(format!(
                    "{text:?} is neither \"all\", a number of cores, nor a list of cpus such as 0,2,4-7"
                ));
            };
            if last < first {
                return Err(format!("the range {part} runs backwards"));
            }
            within((last - first).saturating_add(1))?;
            cpus.extend(first..=last);
        }
        within(cpus.len())?;
        for (at, cpu) in cpus.iter().enumerate() {
            if cpus[..at].contains(cpu) {
                return Err(format!(
                    "cpu {cpu} is named twice; two cores on one cpu only hinder each other"
                ));
            }
        }
        Ok(Cores::List(cpus))
    }

    /// The cpu of each core, given the cpus this process may use. A count above their number
    /// starts again at the first.
    ///
    /// # Errors
    /// Names a cpu of a list that is not there, and those that are.
    pub fn place(&self, cpus: &[usize]) -> Result<Vec<usize>, String> {
        match self {
            Cores::All => Ok(cpus.to_vec()),
            Cores::Count(count) => Ok(cpus.iter().copied().cycle().take(*count).collect()),
            Cores::List(list) => match list.iter().find(|cpu| !cpus.contains(cpu)) {
                None => Ok(list.clone()),
                Some(absent) => Err(format!(
                    "cpu {absent} is not among those this process may use: {cpus:?}"
                )),
            },
        }
    }
}

fn within(count: usize) -> Result<usize, String> {
    if (1..=CORES_MAX).contains(&count) {
        return Ok(count);
    }
    Err(format!(
        "{count} cores is out of range; allowed: 1 to {CORES_MAX}, because a lane lies between every pair of cores"
    ))
}

/// As TOML: `"all"`, a number, or an array.
impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => f.write_str("\"all\""),
            Cores::Count(count) => write!(f, "{count}"),
            Cores::List(cpus) => write!(f, "{cpus:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_a_count_and_a_list() {
        assert_eq!(Cores::parse("all"), Ok(Cores::All));
        assert_eq!(Cores::parse("4"), Ok(Cores::Count(4)));
        assert_eq!(
            Cores::parse("0,2,4-6"),
            Ok(Cores::List(vec![0, 2, 4, 5, 6]))
        );
        assert_eq!(Cores::parse("3,"), Ok(Cores::List(vec![3])));
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        for text in [
            "",
            ",",
            "0",
            "none",
            "1,x",
            "5-3",
            "0-99999999999",
            "1,1",
            "2000",
            "-1",
        ] {
            assert!(Cores::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_count_above_the_machine_wraps_around() {
        assert_eq!(Cores::Count(5).place(&[0, 1]), Ok(vec![0, 1, 0, 1, 0]));
        assert_eq!(Cores::All.place(&[2, 3]), Ok(vec![2, 3]));
        assert_eq!(Cores::List(vec![3]).place(&[2, 3]), Ok(vec![3]));
        assert!(
            Cores::List(vec![9])
                .place(&[2, 3])
                .expect_err("absent")
                .contains("cpu 9")
        );
    }
}
