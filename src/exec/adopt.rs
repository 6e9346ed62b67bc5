//! Adoption of a database that has no sidecar: one beside it, nothing inside it.

use anyhow::{Context as _, Result, bail};

use super::Context;
use super::epoch::{first_sidecar, write_sidecar};
use crate::lineage::Origin;
use crate::observed::Fact;
use crate::probe;
use crate::sys::users::in_guise_of;

pub(super) async fn cluster(context: &Context<'_>) -> Result<()> {
    let data_directory = &context.desired.postgres.data_directory;
    let observed = probe::Prober::default()
        .look(context.desired, probe::FromInside::default(), false)
        .await;
    let cluster = observed
        .cluster()
        .with_context(|| format!("there is no database in {data_directory} any more"))?;
    let control = match &cluster.control {
        Fact::Known(control) => control,
        Fact::Unknown(why) => bail!("cannot tell what {data_directory} holds: {why}"),
    };
    match &cluster.sidecar {
        Fact::Unknown(why) => bail!("{why}"),
        Fact::Known(Some(sidecar)) if sidecar.belongs_to(&control.system_identifier) => return Ok(()),
        Fact::Known(Some(_)) => {
            // Another database's. It names that one's history, so it is kept.
            let path = probe::sidecar_path(data_directory);
            std::fs::rename(&path, format!("{path}.old"))
                .with_context(|| format!("cannot move {path} aside"))?;
        }
        Fact::Known(None) => {}
    }
    // A database whose sidecar got lost is what it was before.
    let origin = match probe::remembered(&context.desired.home)? {
        Some(was) if was.system_identifier == control.system_identifier => was.origin,
        _ => Origin::Adopted(in_guise_of(&context.server_user()?, || {
            probe::own_configuration(data_directory)
        })?),
    };
    let mut sidecar = first_sidecar(control, origin, &context.desired.node);
    if cluster.standby_signal {
        // Its epochs are the other laptop's to name.
        sidecar.intended = None;
    }
    write_sidecar(data_directory, &sidecar)?;
    super::remember(context.desired, &sidecar)?;
    if let Origin::Adopted(own) = &sidecar.origin {
        let name =
            |path: &Option<camino::Utf8PathBuf>| path.as_ref().map_or("none".to_owned(), ToString::to_string);
        tracing::info!(
            data_directory = %data_directory, system_identifier = %control.system_identifier,
            config_file = %name(&own.config_file), hba_file = %name(&own.hba_file),
            "adopted an existing database: its own configuration stays in force where Paceline manages nothing, and so do the lines of its pg_hba.conf"
        );
    }
    Ok(())
}
