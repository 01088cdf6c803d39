//! Plays an attack (`rig/attack.py`) against a proxy and judges every answer.
//!
//! A client's requests never overlap: each waits for the answer to the one before, so "denied from
//! the maxretry-th failure on" is exact. Prints one JSON object; owns no policy of its own.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a load generator reads the clock, starts its own connections and prints its result"
)]

use std::{
    collections::HashMap, error::Error, fmt::Write as _, net::SocketAddr, rc::Rc, time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::LocalSet,
    time::Instant,
};

struct Event {
    due: Duration,
    client: Rc<str>,
    bot: bool,
    request: String,
}

/// What became of one client.
#[derive(Default)]
struct Client {
    bot: bool,
    failures: u32,
    banned: Option<Duration>,
    earned: Option<Duration>,
    answers: u32,
    wrong: u32,
}

/// Everything one connection saw.
#[derive(Default)]
struct Seen {
    clients: HashMap<Rc<str>, Client>,
    latencies: Vec<u32>,
    late: Duration,
}

/// One answer: its status and whether the origin gave it.
struct Answer {
    status: u16,
    from_origin: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [target, schedule, speed, connections, maxretry] = &args[..] else {
        eprintln!("usage: flood ADDR SCHEDULE SPEED(0 = as fast as it goes) CONNECTIONS MAXRETRY");
        return Ok(());
    };
    let (target, connections, maxretry) =
        (target.parse()?, connections.parse()?, maxretry.parse()?);
    let lanes = lanes(
        &std::fs::read_to_string(schedule)?,
        speed.parse()?,
        connections,
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (seen, took) = LocalSet::new().block_on(&runtime, play(target, lanes, maxretry))?;
    println!("{}", summary(&seen, took));
    Ok(())
}

/// Shares the schedule out: all of a client's events on one connection, in order.
fn lanes(
    schedule: &str,
    speed: f64,
    connections: usize,
) -> Result<Vec<Vec<Event>>, Box<dyn Error>> {
    let mut lanes: Vec<Vec<Event>> = (0..connections).map(|_| Vec::new()).collect();
    let mut homes: HashMap<&str, (usize, Rc<str>)> = HashMap::new();
    for line in schedule.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [at, client, bot, method, path] = fields[..] else {
            return Err(format!("bad line: {line}").into());
        };
        let next = homes.len() % connections;
        let (lane, name) = homes.entry(client).or_insert_with(|| (next, client.into()));
        let due = if speed > 0.0 {
            at.parse::<f64>()? / 1000.0 / speed
        } else {
            0.0
        };
        let body = if method == "POST" {
            "Content-Length: 0\r\n"
        } else {
            ""
        };
        lanes[*lane].push(Event {
            due: Duration::from_secs_f64(due),
            client: name.clone(),
            bot: bot == "1",
            request: format!(
                "{method} {path} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\
                 X-Forwarded-For: {client}\r\n{body}\r\n"
            ),
        });
    }
    Ok(lanes)
}

async fn play(
    target: SocketAddr,
    lanes: Vec<Vec<Event>>,
    maxretry: u32,
) -> Result<(Vec<Seen>, Duration), Box<dyn Error>> {
    let began = Instant::now();
    let running: Vec<_> = lanes
        .into_iter()
        .map(|lane| tokio::task::spawn_local(connection(target, lane, maxretry, began)))
        .collect();
    let mut seen = Vec::new();
    for lane in running {
        seen.push(lane.await?.map_err(|error| error.to_string())?);
    }
    Ok((seen, began.elapsed()))
}

async fn connection(
    target: SocketAddr,
    lane: Vec<Event>,
    maxretry: u32,
    began: Instant,
) -> std::io::Result<Seen> {
    let mut stream = connect(target).await?;
    let (mut seen, mut buffer) = (Seen::default(), Vec::with_capacity(16 * 1024));
    for event in lane {
        tokio::time::sleep_until(began + event.due).await;
        let sent = Instant::now();
        seen.late = seen.late.max(sent.duration_since(began + event.due));
        stream.write_all(event.request.as_bytes()).await?;
        let (answer, close) = read_answer(&mut stream, &mut buffer).await?;
        seen.latencies.push(sent.elapsed().as_micros() as u32);
        seen.clients.entry(event.client).or_default().judge(
            event.bot,
            &answer,
            maxretry,
            began.elapsed(),
        );
        if close {
            stream = connect(target).await?;
        }
    }
    Ok(seen)
}

async fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer with a `Content-Length`, and whether the connection closes after it.
async fn read_answer(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> std::io::Result<(Answer, bool)> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = head.parse(buffer) else {
            continue;
        };
        let value = |name: &str| {
            let found = head
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok())
        };
        let body: usize = value("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let answer = Answer {
            status: head.code.unwrap_or(0),
            from_origin: value("x-origin").is_some(),
        };
        let close = value("connection").is_some_and(|text| text.eq_ignore_ascii_case("close"));
        let mut missing = (length + body).saturating_sub(buffer.len());
        while missing > 0 {
            let read = stream.read_buf(buffer).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            missing = missing.saturating_sub(read);
        }
        return Ok((answer, close));
    }
}

impl Client {
    /// Right is: the origin's answer until the failure before the maxretry-th, a denial from then on.
    fn judge(&mut self, bot: bool, answer: &Answer, maxretry: u32, at: Duration) {
        self.bot = bot;
        self.answers += 1;
        let denied = !answer.from_origin && matches!(answer.status, 401 | 403 | 429);
        if denied {
            self.banned.get_or_insert(at);
        }
        if bot && self.answers == maxretry {
            self.earned = Some(at);
        }
        self.failures += u32::from(answer.from_origin && answer.status == 401);
        let should_be_denied = bot && self.answers >= maxretry;
        self.wrong += u32::from(denied != should_be_denied || !(denied || answer.from_origin));
    }
}

fn summary(seen: &[Seen], took: Duration) -> String {
    let clients = || seen.iter().flat_map(|seen| seen.clients.values());
    let mut latencies: Vec<u32> = seen
        .iter()
        .flat_map(|seen| seen.latencies.iter().copied())
        .collect();
    latencies.sort_unstable();
    let at = |share: f64| {
        latencies
            .get((latencies.len() as f64 * share) as usize)
            .copied()
            .unwrap_or(0)
    };
    let mut bans: Vec<Duration> = clients()
        .filter(|client| client.bot)
        .filter_map(|client| client.banned)
        .collect();
    bans.sort_unstable();
    let bots = clients().filter(|client| client.bot).count();
    let share = |share: f64| bans.get(((bots as f64 * share).ceil() as usize).saturating_sub(1));
    let seconds =
        |at: Option<&Duration>| at.map_or("null".into(), |at| format!("{:.3}", at.as_secs_f64()));
    let lag = clients()
        .filter_map(|client| client.banned?.checked_sub(client.earned?))
        .max()
        .unwrap_or_default();
    let mut out = String::new();
    let _ = write!(
        out,
        r#"{{"requests":{},"seconds":{:.3},"bots":{bots},"banned":{},"t95":{},"t100":{},"wrong_bots":{},"wrong_honest":{},"honest_denied":{},"worst_lag_ms":{},"p50_us":{},"p99_us":{},"late_ms":{}}}"#,
        latencies.len(),
        took.as_secs_f64(),
        bans.len(),
        seconds(share(0.95)),
        seconds(share(1.0)),
        clients()
            .filter(|client| client.bot && client.wrong > 0)
            .count(),
        clients()
            .filter(|client| !client.bot && client.wrong > 0)
            .count(),
        clients()
            .filter(|client| !client.bot && client.banned.is_some())
            .count(),
        lag.as_millis(),
        at(0.5),
        at(0.99),
        seen.iter()
            .map(|seen| seen.late.as_millis())
            .max()
            .unwrap_or(0),
    );
    out
}
