//! Adoption of a database that Paceline did not make: a sidecar beside it, nothing inside it.

use anyhow::{Context as _, Result};

use super::Context;
use crate::lineage::Origin;
use crate::probe;

pub(super) async fn cluster(context: &Context<'_>) -> Result<()> {
    let data_directory = &context.desired.postgres.data_directory;
    let user = context.server_user()?;
    let observed = probe::Prober::default()
        .look(context.desired, probe::FromInside::default(), false)
        .await;
    let cluster = observed
        .cluster()
        .with_context(|| format!("there is no database in {data_directory} any more"))?;
    let control = match &cluster.control {
        crate::observed::Fact::Known(control) => control,
        crate::observed::Fact::Unknown(why) => {
            anyhow::bail!("cannot tell what {data_directory} holds: {why}")
        }
    };
    if cluster.trusted_sidecar().is_some() {
        return Ok(());
    }
    let sidecar = super::epoch::first_sidecar(
        control,
        Origin::Adopted(probe::own_configuration(data_directory)?),
        &context.desired.node,
    );
    super::epoch::write_sidecar(data_directory, &sidecar)?;
    super::remember(context.desired, &control.system_identifier)?;
    if let Origin::Adopted(own) = &sidecar.origin {
        let name =
            |path: &Option<camino::Utf8PathBuf>| path.as_ref().map_or("none".to_owned(), ToString::to_string);
        tracing::info!(
            data_directory = %data_directory, system_identifier = %control.system_identifier,
            config_file = %name(&own.config_file), hba_file = %name(&own.hba_file), user = %user.name,
            "adopted an existing database; its own configuration stays in force where Paceline manages nothing, its pg_hba.conf lines are kept"
        );
    }
    Ok(())
}
