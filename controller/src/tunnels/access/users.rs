//! Names and hashes of passwords: the lines of `htpasswd`.

use std::collections::BTreeMap;
use std::fmt;

/// Of one Secret, which has 1 MiB at most.
const MAX_USERS: usize = 10_000;

/// Bytes of a name.
const MAX_NAME: usize = 256;

/// Above it a password takes more than a second, and whoever tries some takes all the processor.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;

/// Names, and hashes of their passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Users(BTreeMap<String, String>);

/// Without the hashes.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.0.len())
    }
}

/// Why lines are no list of passwords. Never quotes a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUsers {
    #[error("nobody is in it: add a line by `htpasswd -nB NAME`")]
    Nobody,
    #[error("more than {MAX_USERS} lines: sign people in with spec.access.oidc")]
    TooMany,
    #[error("line {0} is not of the form NAME:HASH: make it by `htpasswd -nB NAME`")]
    Form(usize),
    #[error("line {0} is there for a name that an earlier line has: leave one of them out")]
    Twice(usize),
    #[error("line {0} has a password that is not hashed by bcrypt: make it by `htpasswd -nB NAME`")]
    NotBcrypt(usize),
    #[error(
        "line {line} has a password hashed at cost {cost}, and from {} to {} are taken: make it by `htpasswd -nB -C 10 NAME`",
        COSTS.start(),
        COSTS.end()
    )]
    Cost { line: usize, cost: u32 },
}

impl Users {
    /// Reads the lines that `htpasswd` writes.
    pub fn read(text: &str) -> Result<Self, BadUsers> {
        let mut users = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let (number, line) = (index + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if users.len() == MAX_USERS {
                return Err(BadUsers::TooMany);
            }
            let (name, hash) = line.split_once(':').ok_or(BadUsers::Form(number))?;
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                return Err(BadUsers::Form(number));
            }
            let parts: Result<bcrypt::HashParts, _> = hash.parse();
            let cost = parts.map_err(|_| BadUsers::NotBcrypt(number))?.get_cost();
            if !COSTS.contains(&cost) {
                return Err(BadUsers::Cost { line: number, cost });
            }
            if users.insert(name.to_owned(), hash.to_owned()).is_some() {
                return Err(BadUsers::Twice(number));
            }
        }
        match users.is_empty() {
            true => Err(BadUsers::Nobody),
            false => Ok(Self(users)),
        }
    }

    /// Of the password of that user.
    pub fn hash_of(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Of the password of somebody.
    pub fn any_hash(&self) -> Option<&str> {
        self.0.values().next().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_read_or_refused_by_their_number() {
        let good = bcrypt::hash("secret", 4).unwrap();
        let dear = good.replacen("$04$", "$15$", 1);
        for (text, expected) in [
            (format!("ann:{good}\n\n# no more\nbob:{good}\r\n"), Ok(2)),
            (format!("ann:{}", good.replacen("$2b$", "$2y$", 1)), Ok(1)),
            (String::new(), Err(BadUsers::Nobody)),
            ("# nobody".to_owned(), Err(BadUsers::Nobody)),
            ("ann".to_owned(), Err(BadUsers::Form(1))),
            (format!(":{good}"), Err(BadUsers::Form(1))),
            (format!("ann:{good}\nann:{good}"), Err(BadUsers::Twice(2))),
            ("\nann:$apr1$x$y".to_owned(), Err(BadUsers::NotBcrypt(2))),
            ("ann:{SHA}abc=".to_owned(), Err(BadUsers::NotBcrypt(1))),
            (
                format!("ann:{dear}"),
                Err(BadUsers::Cost { line: 1, cost: 15 }),
            ),
        ] {
            let found = Users::read(&text).map(|users| users.0.len());
            assert_eq!(found, expected, "{text}");
            if let Err(why) = expected {
                assert!(!why.to_string().contains("$2"), "{why}");
            }
        }
        let users = Users::read(&format!("ann:{good}")).unwrap();
        assert_eq!(format!("{users:?}"), "1 users");
    }
}
