//! Fetches images by URL, of hosts that an operator names and of no others.
//!
//! Whoever may send a URL may otherwise have the server ask any host that it reaches, also such as only it reaches. So
//! nothing is fetched unless its host is named, no redirect is followed, and a name that leads to an address of a
//! private network is refused when it is looked up, so that no second look-up can say another thing. An address that is
//! named itself may be private: who writes it means it.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Semaphore, task::spawn_blocking};
use ureq::{
    Agent, Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

/// The largest file that is fetched.
const MOST_BYTES: u64 = 32 << 20;
/// How long fetching one may take.
const TIME: Duration = Duration::from_secs(10);
/// How many are fetched at once.
const AT_ONCE: usize = 16;

/// A host whose images may be fetched, with a port or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageHost {
    host: String,
    port: Option<u16>,
}

impl FromStr for ImageHost {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let refused = || format!("{written:?} is no host; write a name such as images.example, or name:port");
        let uri: Uri = format!("http://{written}/").parse().map_err(|_| refused())?;
        let authority = uri.authority().ok_or_else(refused)?;
        if authority.as_str() != written || written.contains('@') {
            return Err(refused());
        }
        Ok(Self { host: authority.host().to_ascii_lowercase(), port: authority.port_u16() })
    }
}

impl ImageHost {
    fn allows(&self, uri: &Uri) -> bool {
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        let known = self.port.map_or(port == usual, |own| own == port);
        known && uri.host().is_some_and(|host| host.eq_ignore_ascii_case(&self.host))
    }
}

/// Fetches images of some hosts.
#[derive(Debug, Clone)]
pub struct Fetcher {
    hosts: Arc<[ImageHost]>,
    agent: Agent,
    permits: Arc<Semaphore>,
}

impl Fetcher {
    /// A fetcher for those hosts; without any it refuses all.
    #[must_use]
    pub fn new(hosts: Vec<ImageHost>) -> Self {
        Self::within(hosts, TIME)
    }

    fn within(hosts: Vec<ImageHost>, time: Duration) -> Self {
        let config = Config::builder()
            .max_redirects(0)
            .timeout_global(Some(time))
            .proxy(None)
            .user_agent(concat!("karat/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            hosts: hosts.into(),
            agent: Agent::with_parts(config, DefaultConnector::default(), PublicOnly),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The bytes behind a URL.
    ///
    /// # Errors
    /// What keeps them from being fetched.
    pub(crate) async fn fetch(&self, url: String) -> Result<Vec<u8>, String> {
        let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
        if !self.hosts.iter().any(|host| host.allows(&uri)) {
            return Err(format!(
                "images of {:?} are not fetched; send data:image/png;base64,…, or have the operator name the host with \
                 --fetch-images",
                uri.host().unwrap_or_default()
            ));
        }
        // Nothing closes the semaphore.
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|error| error.to_string())?;
        let agent = self.agent.clone();
        let fetched = spawn_blocking(move || {
            let _permit = permit;
            get(&agent, &uri).map_err(|reason| format!("{uri} can't be fetched: {reason}"))
        });
        fetched.await.map_err(|error| error.to_string())?
    }
}

fn get(agent: &Agent, uri: &Uri) -> Result<Vec<u8>, String> {
    let response = agent.get(uri).call().map_err(|error| error.to_string())?;
    if response.status().as_u16() != 200 {
        return Err(format!("it answers {}, and redirects are not followed", response.status().as_u16()));
    }
    let mut bytes = Vec::new();
    let read = response.into_body().into_reader().take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("it has more than {MOST_BYTES} bytes"));
    }
    Ok(bytes)
}

/// Looks names up, and refuses addresses of private networks.
#[derive(Debug)]
struct PublicOnly;

impl Resolver for PublicOnly {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        let named_itself = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        if !named_itself && found.iter().any(|address| !is_public(address.ip())) {
            return Err(Error::HostNotFound);
        }
        Ok(found)
    }
}

/// Whether an address is one of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4() {
            // Mapped and compatible addresses lead where the older one does.
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        // Carriers' networks, protocol assignments and benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

/// Global unicast is `2000::/3`; of it, what translates to addresses of version 4 or only documents is left out.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let translates = first == 0x2002 || (first == 0x2001 && (second < 0x0200 || second == 0x0db8));
    first & 0xe000 == 0x2000 && !translates
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, sync::mpsc, thread};

    use super::*;

    #[tokio::test]
    async fn a_host_that_breaks_off_in_the_middle_of_a_file_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (tell, told) = mpsc::channel();
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
            tell.send(()).unwrap();
            // Open until the other side is.
            stream.read_to_end(&mut Vec::new())
        });
        let fetcher = Fetcher::within(vec![host.parse().unwrap()], Duration::from_secs(1));
        let refused = fetcher.fetch(format!("http://{host}/a.png")).await.unwrap_err();
        assert!(refused.contains("timeout"), "{refused}");
        assert!(told.try_recv().is_ok(), "the host had begun its file");
        drop((fetcher, asked.join()));
    }

    #[test]
    fn a_host_is_named_with_its_port_or_has_the_usual_one() {
        let allows = |host: &str, url: &str| host.parse::<ImageHost>().unwrap().allows(&url.parse().unwrap());
        assert!(allows("images.example", "https://Images.Example/a.png"));
        assert!(allows("images.example:8000", "http://images.example:8000/a.png"));
        for (host, url) in [
            ("images.example", "https://images.example:8000/a.png"),
            ("images.example", "https://images.example.evil/a.png"),
            ("images.example", "https://evil@other.example/a.png"),
            ("images.example:8000", "http://images.example/a.png"),
        ] {
            assert!(!allows(host, url), "{host} {url}");
        }
        for bad in ["", "a b", "user@host", "http://host", "host/path"] {
            assert!(bad.parse::<ImageHost>().is_err(), "{bad}");
        }
    }

    #[test]
    fn private_addresses_are_told_from_public_ones() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fc00::1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::a00:1",
            "224.0.0.1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "2606:4700::1111", "93.184.216.34"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }
}
