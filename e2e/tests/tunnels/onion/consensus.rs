//! What the authorities agree on, as every program of the network is told it.

use std::net::Ipv4Addr;

use hive_e2e::wait::holds;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a relay has to be for Arti, on one place of a way or another.
const FLAGS: [&str; 7] = [
    "Fast", "Guard", "HSDir", "Running", "Stable", "V2Dir", "Valid",
];

/// Both random values: see the keys of an authority.
const RANDOM: [&str; 2] = ["shared-rand-previous-value ", "shared-rand-current-value "];

/// Lines that are shown where something is missing.
const SHOWN: [&str; 5] = ["valid-", "fresh-", "shared-", "r ", "s "];

/// Asks an authority, at the port of its directory.
pub async fn read(directory: u16) -> Result<String, String> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, directory)).await?;
        let request = b"GET /tor/status-vote/current/consensus-microdesc HTTP/1.0\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange.await.map_err(|error| error.to_string())?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or((answer.as_str(), ""));
    holds(head.contains(" 200 "), head)?;
    Ok(body.to_owned())
}

/// Whether it has so many relays that are good for everything, and the random values.
pub fn suffices(text: &str, relays: usize) -> Result<(), String> {
    let has = |start: &str| text.lines().any(|line| line.starts_with(start));
    let good = text.lines().filter(|line| is_good(line)).count();
    let shown = text
        .lines()
        .filter(|line| SHOWN.iter().any(|start| line.starts_with(start)));
    let shown: Vec<&str> = shown.collect();
    holds(
        good == relays && RANDOM.into_iter().all(has),
        format!(
            "{good} of {relays} relays have {FLAGS:?}, and these are wanted: {RANDOM:?}\n{}",
            shown.join("\n")
        ),
    )
}

fn is_good(line: &str) -> bool {
    let flags = line.strip_prefix("s ");
    flags.is_some_and(|flags| {
        let has = |wanted: &&str| flags.split(' ').any(|flag| flag == *wanted);
        FLAGS.iter().all(has)
    })
}
