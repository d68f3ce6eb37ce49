//! Who may log in, and the secret that decides it.
//!
//! The secret is never printed: not by `Debug`, not by `iris check`, not in an error.

use std::fmt;
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Fewest bytes of a secret: 16 random bytes cannot be guessed over a network.
const SECRET_BYTES_MIN: usize = 16;
/// Most bytes of a secret: it travels in every login.
const SECRET_BYTES_MAX: usize = 1024;

/// Who may log in.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Anyone, as anyone.
    None,
    /// Whoever shows the secret, as anyone.
    SharedSecret {
        /// Where the secret was read from.
        file: PathBuf,
        /// The secret itself.
        secret: Secret,
    },
}

impl Auth {
    /// Reads the secret of `file`; `none` is [`Auth::None`].
    ///
    /// # Errors
    /// A sentence for people that does not hold the secret.
    pub fn parse(text: &str) -> Result<Auth, String> {
        if text == "none" {
            return Ok(Auth::None);
        }
        let file = PathBuf::from(text);
        let secret = Secret::read(&file)?;
        Ok(Auth::SharedSecret { file, secret })
    }

    /// Whether a login with this credential is let in.
    pub fn admits(&self, credential: &[u8]) -> bool {
        match self {
            Auth::None => true,
            Auth::SharedSecret { secret, .. } => secret.matches(credential),
        }
    }

    /// The file of the secret, for warnings and `iris check`.
    pub fn secret_file(&self) -> Option<&Path> {
        match self {
            Auth::None => None,
            Auth::SharedSecret { file, .. } => Some(file),
        }
    }

    /// What an operator should know although it is no error.
    pub fn warning(&self) -> Option<String> {
        let file = self.secret_file()?;
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let mode = std::fs::metadata(file).ok()?.permissions().mode();
        is_open_to_others(file, mode, credentials.as_deref()).then(|| {
            format!(
                "secret_file {} is open to other users (mode {:03o}): chmod 600 it and chown it to the user that runs Iris, \
                 or hand it over with LoadCredential= of systemd",
                file.display(),
                mode & 0o777
            )
        })
    }
}

/// Whether a file of this mode is open to others than its owner. What systemd puts into its folder of credentials is not:
/// the folder is the service's alone, and the bits of the group are the mask of a list of who may read.
fn is_open_to_others(file: &Path, mode: u32, credentials: Option<&Path>) -> bool {
    let is_credential = credentials.is_some_and(|folder| file.starts_with(folder));
    let others = if is_credential { 0o007 } else { 0o077 };
    mode & others != 0
}

/// Bytes that a client must show to log in.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Reads a secret: the file's bytes without line ends at the end.
    fn read(file: &Path) -> Result<Secret, String> {
        let mut bytes = Vec::new();
        std::fs::File::open(file)
            // Bounded: a wrong path may name a device or a log of any size.
            .and_then(|open| {
                open.take(SECRET_BYTES_MAX as u64 + 3)
                    .read_to_end(&mut bytes)
            })
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let len = bytes.trim_ascii_end().len();
        bytes.truncate(len);
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&len) {
            return Err(format!(
                "the secret in {} has {len} bytes; allowed: {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}, \
                 because a shorter one can be guessed and every login carries it",
                file.display()
            ));
        }
        Ok(Secret(bytes.into_boxed_slice()))
    }

    /// Compares in a time that does not depend on where the first difference is, so that the
    /// answer's delay does not tell a guesser how much was right.
    pub fn matches(&self, credential: &[u8]) -> bool {
        let difference = self
            .0
            .iter()
            .zip(credential)
            .fold(0u8, |sum, (a, b)| black_box(sum | (a ^ b)));
        self.0.len() == credential.len() && difference == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), bytes).expect("write");
        file
    }

    fn parse(bytes: &[u8]) -> Result<Auth, String> {
        Auth::parse(file_with(bytes).path().to_str().expect("utf-8 path"))
    }

    #[test]
    fn the_secret_is_the_file_without_its_line_end() {
        let auth = parse(b"correct horse battery\r\n").expect("valid");
        assert!(auth.admits(b"correct horse battery"));
        for wrong in [
            &b""[..],
            b"correct horse batter",
            b"correct horse batterz",
            b"correct horse battery\n",
        ] {
            assert!(!auth.admits(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn without_authentication_anyone_is_admitted() {
        assert!(Auth::parse("none").expect("valid").admits(b""));
    }

    #[test]
    fn short_long_and_missing_secrets_are_refused_without_showing_them() {
        let error = parse(b"tiny secret").expect_err("too short");
        assert!(
            error.contains("16 to 1024") && !error.contains("tiny"),
            "{error}"
        );
        assert!(parse(&[b'x'; 2000]).is_err());
        assert!(
            Auth::parse("/nonexistent/secret")
                .expect_err("missing")
                .contains("cannot read")
        );
    }

    #[test]
    fn a_secret_is_its_owners_alone_or_a_credential_of_systemd() {
        let file = Path::new("/run/credentials/iris.service/secret");
        let folder = Some(Path::new("/run/credentials/iris.service"));
        for (mode, as_file, as_credential) in [
            (0o100_600, false, false),
            (0o100_400, false, false),
            (0o100_440, true, false),
            (0o100_620, true, false),
            (0o100_604, true, true),
        ] {
            assert_eq!(is_open_to_others(file, mode, None), as_file, "{mode:o}");
            let in_folder = is_open_to_others(file, mode, folder);
            assert_eq!(in_folder, as_credential, "{mode:o}");
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let auth = parse(b"correct horse battery").expect("valid");
        assert!(!format!("{auth:?}").contains("horse"));
    }
}
