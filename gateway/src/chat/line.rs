//! What a typed line means.

use iris_protocol::Name;

/// A line's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input<'a> {
    /// Nothing to do.
    Empty,
    /// `@bob hello`
    Send { target: &'a str, text: &'a str },
    /// `/who bob`
    Who(&'a str),
    /// `/follow bob`
    Follow(&'a str),
    /// `/unfollow bob`
    Unfollow(&'a str),
    /// `/help`
    Help,
    /// `/quit`
    Quit,
}

/// Parses a line, or says what is wrong with it.
pub(super) fn parse(line: &str) -> Result<Input<'_>, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(Input::Empty);
    }
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim_start();
    if let Some(target) = word.strip_prefix('@') {
        let target = name(target)?;
        if rest.is_empty() {
            return Err(format!("nothing to send; write @{target} and a text"));
        }
        return Ok(Input::Send { target, text: rest });
    }
    match word {
        "/who" => named(word, rest).map(Input::Who),
        "/follow" => named(word, rest).map(Input::Follow),
        "/unfollow" => named(word, rest).map(Input::Unfollow),
        "/help" | "/quit" if !rest.is_empty() => Err(format!("{word} stands alone")),
        "/help" => Ok(Input::Help),
        "/quit" => Ok(Input::Quit),
        _ if word.starts_with('/') => Err(format!("{word} is no command; /help lists them")),
        _ => Err("to whom? write @bob and a text; /help lists the commands".to_owned()),
    }
}

fn named<'a>(command: &str, rest: &'a str) -> Result<&'a str, String> {
    if rest.is_empty() {
        return Err(format!("whom? write {command} bob"));
    }
    name(rest)
}

fn name(text: &str) -> Result<&str, String> {
    Name::parse(text.as_bytes())
        .map(Name::as_str)
        .map_err(|error| format!("{text:?} is no user's name: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_keep_the_text_as_it_is() {
        assert_eq!(
            parse("@bob hello"),
            Ok(Input::Send {
                target: "bob",
                text: "hello"
            })
        );
        assert_eq!(
            parse("  @bob\t two  words \r\n"),
            Ok(Input::Send {
                target: "bob",
                text: "two  words"
            })
        );
        assert_eq!(
            parse("@žofie @bob /quit"),
            Ok(Input::Send {
                target: "žofie",
                text: "@bob /quit"
            })
        );
    }

    #[test]
    fn commands_are_known() {
        assert_eq!(parse("/who bob"), Ok(Input::Who("bob")));
        assert_eq!(parse("/follow Ann Lee"), Ok(Input::Follow("Ann Lee")));
        assert_eq!(parse("/unfollow bob"), Ok(Input::Unfollow("bob")));
        assert_eq!(parse("/help"), Ok(Input::Help));
        assert_eq!(parse(" /quit "), Ok(Input::Quit));
        assert_eq!(parse(" \t"), Ok(Input::Empty));
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, hint) in [
            ("@bob", "nothing to send"),
            ("@ hello", "no user's name"),
            ("hello", "to whom?"),
            ("/who", "whom?"),
            ("/quit now", "stands alone"),
            ("/dance", "no command"),
        ] {
            let problem = parse(line).expect_err(line);
            assert!(problem.contains(hint), "{line:?}: {problem}");
        }
        let long = format!("@{} hi", "x".repeat(256));
        assert!(parse(&long).is_err());
    }
}
