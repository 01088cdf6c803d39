//! A wire between jailgate and a server that can be cut, hang, lose answers or talk nonsense.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What the wire does with what a client sends. Changes hold for open connections too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Both ways are open.
    Open,
    /// Connections are closed.
    Cut,
    /// Nothing is answered.
    Hang,
    /// Alerts arrive, and their answer is lost.
    Lose,
    /// 503, without asking the server.
    Unavailable,
    /// 200 with something that is no JSON.
    Nonsense,
}

/// A wire to one server.
pub struct Link {
    /// Where it listens.
    pub address: SocketAddr,
    way: Arc<Mutex<Way>>,
}

impl Link {
    /// An open one; it lives until the test process ends.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let way = Arc::new(Mutex::new(Way::Open));
        let switch = way.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let way = switch.clone();
                std::thread::spawn(move || carry(client, server, &way));
            }
        });
        Self { address, way }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on so.
    pub fn set(&self, way: Way) {
        *self.way.lock().unwrap() = way;
    }
}

fn carry(mut client: TcpStream, server: SocketAddr, way: &Arc<Mutex<Way>>) -> Option<()> {
    let mut upstream = None;
    let lost = Arc::new(Mutex::new(false));
    let mut chunk = [0; 65536];
    loop {
        let read = client.read(&mut chunk).ok().filter(|read| *read > 0)?;
        let way = *way.lock().unwrap();
        let answer = |head: &str, body: &str| {
            let length = body.len();
            format!(
                "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            )
        };
        let said = match way {
            Way::Hang => continue,
            Way::Cut => String::new(),
            Way::Unavailable => answer("503 Busy", ""),
            Way::Nonsense => answer("200 OK", "<html>who is there?</html>"),
            Way::Open | Way::Lose => {
                let alerts = chunk.starts_with(b"POST /v1/alerts ");
                *lost.lock().unwrap() |= way == Way::Lose && alerts;
                let to = match &mut upstream {
                    Some(to) => to,
                    None => upstream.insert(connect(&client, server, &lost)?),
                };
                to.write_all(&chunk[..read]).ok()?;
                continue;
            }
        };
        let _ = client.write_all(said.as_bytes());
        let _ = client.shutdown(Shutdown::Both);
        return None;
    }
}

/// Connects to the server and carries its answers back, unless they are to be lost.
fn connect(client: &TcpStream, server: SocketAddr, lost: &Arc<Mutex<bool>>) -> Option<TcpStream> {
    let upstream = TcpStream::connect(server).ok()?;
    let (mut from, mut to) = (upstream.try_clone().ok()?, client.try_clone().ok()?);
    let lost = lost.clone();
    std::thread::spawn(move || {
        let mut chunk = [0; 65536];
        while let Some(read) = from.read(&mut chunk).ok().filter(|read| *read > 0) {
            if *lost.lock().unwrap() || to.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    Some(upstream)
}
