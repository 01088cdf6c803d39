//! `jailgate import traefik`: a jailgate.yaml out of the middlewares of Traefik's Fail2Ban plugin,
//! and what Traefik has to say in their places. It asks nobody and changes no file.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;

use crate::config::import::{self, Draft, File, Imported, Provider};

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, clap::Subcommand)]
enum From {
    /// Turn middlewares of Traefik's Fail2Ban plugin into a jailgate.yaml on standard output
    ///
    /// Reads the file provider's YAML and TOML, compose files with labels and Kubernetes
    /// Middleware objects, whatever the plugin is called there; with the static configuration among
    /// the files it knows which plugin is meant. Exit code 1: no such middleware; 78: values that
    /// the plugin would not have started with either, each named with its place.
    Traefik {
        /// Files of Traefik's, read together
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print Traefik's side only, ready to paste
        #[arg(long)]
        traefik: bool,
    },
}

/// Prints what was made.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let From::Traefik { files, traefik } = &args.from;
    let read = files.iter().map(|file| {
        let name = file.display().to_string();
        let text = fs::read_to_string(file).with_context(|| name.clone())?;
        anyhow::Ok(File { name, text })
    });
    let read = read.collect::<anyhow::Result<Vec<_>>>()?;
    let imported = import::traefik(&read);
    for other in &imported.others {
        eprintln!("passed over, not Fail2Ban: {other}");
    }
    if !imported.jails.is_empty() {
        let made = match traefik {
            true => their_side(&imported.jails),
            false => document(&read, &imported),
        };
        io::stdout().write_all(made.as_bytes())?;
    }
    if !imported.problems.is_empty() {
        return Err(imported.problems.into());
    }
    anyhow::ensure!(
        !imported.jails.is_empty(),
        "no middleware of the Fail2Ban plugin in these files: neither `middlewares: NAME: plugin:` \
         nor labels `traefik.http.middlewares.NAME.plugin.…` nor objects of kind Middleware"
    );
    Ok(ExitCode::SUCCESS)
}

/// Where the two find each other, for where Traefik runs.
struct Surroundings {
    host: &'static str,
    address: &'static str,
    trusted: &'static str,
    why: &'static str,
}

fn surroundings(jails: &[Draft]) -> Surroundings {
    let any = |wanted: fn(&Provider) -> bool| jails.iter().any(|draft| wanted(&draft.provider));
    if any(|provider| matches!(provider, Provider::Kubernetes { .. })) {
        return Surroundings {
            host: "jailgate",
            address: ":4181",
            trusted: "10.0.0.0/8",
            why: "the pods' network; narrower is better",
        };
    }
    if any(|provider| *provider == Provider::Labels) {
        return Surroundings {
            host: "jailgate",
            address: ":4181",
            trusted: "172.16.0.0/12",
            why: "Docker's networks; Traefik's own alone is better",
        };
    }
    Surroundings {
        host: "127.0.0.1",
        address: "127.0.0.1:4181",
        trusted: "127.0.0.1/32",
        why: "Traefik, on the same machine",
    }
}

/// The whole jailgate.yaml.
fn document(files: &[File], imported: &Imported) -> String {
    let jails = &imported.jails;
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    let Surroundings {
        address,
        trusted,
        why,
        ..
    } = surroundings(jails);
    let mut page = format!(
        "# Made by `jailgate import traefik` of {}.\n\
         # What was changed is said where it was. How jailgate's jails differ from the plugin's is in\n\
         # its README, under “Differences from the plugin”. Traefik's side stands at the end.\n\n\
         forwardAuth:\n  address: \"{address}\" # where Traefik asks\n  \
         trustedIPs: [\"{trusted}\"] # {why}\n",
        names.join(", ")
    );
    let counting: Vec<_> = (jails.iter().filter(|draft| draft.counts))
        .map(|draft| draft.jail.as_str())
        .collect();
    if !counting.is_empty() {
        let _ = write!(
            page,
            "\naccessLogs: # forwardAuth is asked before the service answers: statuses come from here\n  \
             - path: /var/log/traefik/access.log\n    format: traefik-json\n    \
             trustedIPs: [] # the same as in Traefik's forwardedHeaders.trustedIPs\n    jails: [{}]\n",
            counting.join(", ")
        );
    }
    page.push_str("\njails:\n");
    for draft in jails {
        let Draft {
            jail,
            middleware,
            place,
            yaml,
            ..
        } = draft;
        let _ = write!(
            page,
            "  {jail}: # middleware `{middleware}`, {place}\n{yaml}"
        );
    }
    page.push_str(
        "\n# Traefik's side (`jailgate import traefik --traefik` prints it without the `#`):\n#\n",
    );
    for line in their_side(jails).lines() {
        let line = format!("# {line}");
        let _ = writeln!(page, "{}", line.trim_end());
    }
    page
}

/// What takes the places of the plugin's middlewares, by provider, and the access log.
fn their_side(jails: &[Draft]) -> String {
    let mut page = String::from(
        "# These take the places of the plugin's middlewares of the same names, so that routers stay\n\
         # as they are. The plugin itself (`experimental.plugins`) can go when none is left.\n",
    );
    let of = |provider: Provider| jails.iter().filter(move |draft| draft.provider == provider);
    if of(Provider::File).next().is_some() {
        let host = surroundings(jails).host;
        page.push_str("# dynamic configuration, file provider\nhttp:\n  middlewares:\n");
        for draft in of(Provider::File) {
            let _ = write!(page, "    {}:\n{}", draft.middleware, ask(draft, host, 6));
        }
    }
    if of(Provider::Labels).next().is_some() {
        page.push_str("# labels, in place of the plugin's\nlabels:\n");
        for draft in of(Provider::Labels) {
            let key = format!("traefik.http.middlewares.{}.forwardauth", draft.middleware);
            let _ = write!(
                page,
                "  {key}.address: http://jailgate:4181/forward-auth/{}\n  \
                 {key}.trustForwardHeader: \"true\"\n  {key}.authRequestHeaders: {}\n",
                draft.jail,
                sent(draft).join(",")
            );
        }
    }
    for draft in jails {
        let Provider::Kubernetes { namespace } = &draft.provider else {
            continue;
        };
        let host = format!("jailgate.{namespace}.svc");
        let _ = write!(
            page,
            "---\napiVersion: traefik.io/v1alpha1\nkind: Middleware\n\
             metadata: {{ name: {}, namespace: {namespace} }}\nspec:\n{}",
            draft.middleware,
            ask(draft, &host, 2)
        );
    }
    if jails.iter().any(|draft| draft.counts) {
        page.push_str(
            "---\n# static configuration: what jailgate counts by\naccessLog:\n  \
             filePath: /var/log/traefik/access.log # where jailgate can read it\n  format: json\n  \
             fields:\n    headers: { names: { User-Agent: keep } }\n",
        );
    }
    page
}

/// A forwardAuth middleware.
fn ask(draft: &Draft, host: &str, blanks: usize) -> String {
    format!(
        "{0:blanks$}forwardAuth:\n{0:blanks$}  address: http://{host}:4181/forward-auth/{1}\n\
         {0:blanks$}  trustForwardHeader: true # the chain that the entry point let through, plus the peer\n\
         {0:blanks$}  authRequestHeaders: [{2}]\n",
        "",
        draft.jail,
        sent(draft).join(", ")
    )
}

/// The client's headers that jailgate needs.
fn sent(draft: &Draft) -> Vec<&str> {
    let own = draft.header.as_deref();
    ["User-Agent"].into_iter().chain(own).collect()
}
