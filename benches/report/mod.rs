//! What the benchmarks share: arguments, a connection, and two series of times next to each other.

#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use crate::common::Laptop;

/// The number behind this argument.
pub fn number(name: &str, otherwise: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments
        .nth(1)
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

/// An open connection as superuser.
#[allow(dead_code, reason = "not every benchmark measures from one")]
pub async fn connect(laptop: &Laptop) -> Client {
    let mut config = Config::new();
    config
        .host_path(laptop.path("home/run"))
        .port(laptop.port)
        .user("postgres")
        .dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.expect("connect");
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// Prints both and the ratio of their medians.
pub fn report(ours_are: &str, ours: &mut [Duration], bare_are: &str, bare: &mut [Duration]) {
    let line = |what: &str, times: &mut [Duration]| {
        times.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        println!(
            "{what:<48} median {:>6.1} ms   fastest {:>6.1}   slowest {:>6.1}   runs {}",
            ms(times[times.len() / 2]),
            ms(times[0]),
            ms(times[times.len() - 1]),
            times.len()
        );
        ms(times[times.len() / 2])
    };
    println!();
    let (ours, bare) = (line(ours_are, ours), line(bare_are, bare));
    println!("{:<48} {:.2}", "ratio of the medians", ours / bare);
}
