//! The tables' definitions, in one place: `template.yaml` declares the same, and [`Store::create_tables`] makes them
//! embedded and in tests.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection as SdkProjection,
    ProjectionType, ScalarAttributeType, TimeToLiveSpecification, TimeToLiveStatus,
};

use crate::items::{PK, SK};
use crate::{Error, Store};

/// Lists a tenant's workflows and connections: in `config`, by [`LIST_KEY`] and [`LIST_SORT`], newest last.
pub(crate) const BY_TENANT: &str = "by_tenant";
pub(crate) const LIST_KEY: &str = "list";
pub(crate) const LIST_SORT: &str = "listed";

/// Lists a workflow's runs: in `history`, by [`WORKFLOW_KEY`] and the run's id. Neither ever changes, so only the run's
/// first write touches it.
pub(crate) const BY_WORKFLOW: &str = "by_workflow";
pub(crate) const WORKFLOW_KEY: &str = "wk";

/// Lists the runs that are waiting or didn't succeed: in `history`, by the row's partition and [`ATTENTION`], which is
/// `{status}#{run id}` and absent on all other rows.
pub(crate) const BY_ATTENTION: &str = "by_attention";
pub(crate) const ATTENTION: &str = "attn";

/// When DynamoDB may drop the row: seconds since 1970. Never on the row of a run that may still go on.
pub(crate) const TTL: &str = "ttl";

/// The names of the two tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Accounts, keys, workflows, connections.
    pub config: String,
    /// Runs, their journals and what was given up.
    pub history: String,
}

/// A table as it has to be created: on-demand capacity, all attributes strings.
#[derive(Debug, Clone, Copy)]
pub struct TableDefinition {
    /// Partition key.
    pub hash: &'static str,
    /// Sort key.
    pub range: &'static str,
    /// Global secondary indexes.
    pub indexes: &'static [IndexDefinition],
    /// The attribute that holds a row's expiry, if rows expire.
    pub ttl: Option<&'static str>,
    /// Whether point-in-time recovery is to be on.
    pub point_in_time_recovery: bool,
}

/// A global secondary index.
#[derive(Debug, Clone, Copy)]
pub struct IndexDefinition {
    /// The index's name.
    pub name: &'static str,
    /// Partition key.
    pub hash: &'static str,
    /// Sort key.
    pub range: &'static str,
    /// What it holds besides the keys.
    pub projection: Projection,
}

/// What an index holds besides the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    /// Every attribute.
    All,
    /// Nothing.
    KeysOnly,
    /// These attributes.
    Include(&'static [&'static str]),
}

impl TableDefinition {
    /// What is kept for good.
    pub const CONFIG: Self = Self {
        hash: PK,
        range: SK,
        indexes: &[IndexDefinition { name: BY_TENANT, hash: LIST_KEY, range: LIST_SORT, projection: Projection::All }],
        ttl: None,
        point_in_time_recovery: true,
    };

    /// What expires.
    pub const HISTORY: Self = Self {
        hash: PK,
        range: SK,
        indexes: &[
            IndexDefinition { name: BY_WORKFLOW, hash: WORKFLOW_KEY, range: SK, projection: Projection::KeysOnly },
            IndexDefinition {
                name: BY_ATTENTION,
                hash: PK,
                range: ATTENTION,
                projection: Projection::Include(&[WORKFLOW_KEY]),
            },
        ],
        ttl: Some(TTL),
        point_in_time_recovery: false,
    };
}

impl Store {
    /// Makes the tables that don't exist yet, as defined here, without point-in-time recovery. For the embedded database
    /// and emulators, whose tables are usable at once; on AWS the template makes them.
    ///
    /// # Errors
    /// The database is away or refuses.
    pub async fn create_tables(&self) -> Result<(), Error> {
        self.create_table(&self.inner.tables.config, TableDefinition::CONFIG).await?;
        self.create_table(&self.inner.tables.history, TableDefinition::HISTORY).await
    }

    async fn create_table(&self, name: &str, definition: TableDefinition) -> Result<(), Error> {
        const OPERATION: &str = "create table";
        let mut attributes = vec![definition.hash, definition.range];
        attributes.extend(definition.indexes.iter().flat_map(|index| [index.hash, index.range]));
        attributes.sort_unstable();
        attributes.dedup();
        let attributes = attributes
            .into_iter()
            .map(|name| {
                let attribute = AttributeDefinition::builder().attribute_name(name);
                attribute.attribute_type(ScalarAttributeType::S).build()
            })
            .collect::<Result<_, _>>()
            .map_err(refused(OPERATION))?;
        let indexes =
            definition.indexes.iter().map(index).collect::<Result<Vec<_>, _>>().map_err(refused(OPERATION))?;
        let created = self
            .client()
            .create_table()
            .table_name(name)
            .billing_mode(BillingMode::PayPerRequest)
            .set_attribute_definitions(Some(attributes))
            .set_key_schema(Some(key_schema(definition.hash, definition.range).map_err(refused(OPERATION))?))
            .set_global_secondary_indexes((!indexes.is_empty()).then_some(indexes))
            .send()
            .await;
        if let Err(error) = created
            && !error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception())
        {
            return Err(Error::from_sdk(OPERATION, error));
        }
        match definition.ttl {
            Some(attribute) => self.expire_by(name, attribute).await,
            None => Ok(()),
        }
    }

    async fn expire_by(&self, table: &str, attribute: &str) -> Result<(), Error> {
        const OPERATION: &str = "set the table's expiry attribute";
        let described = self.client().describe_time_to_live().table_name(table).send().await;
        let described = described.map_err(|error| Error::from_sdk(OPERATION, error))?;
        let status = described.time_to_live_description.and_then(|ttl| ttl.time_to_live_status);
        if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
            return Ok(());
        }
        let expiry = TimeToLiveSpecification::builder().attribute_name(attribute).enabled(true).build();
        let request = self.client().update_time_to_live().table_name(table);
        let request = request.time_to_live_specification(expiry.map_err(refused(OPERATION))?);
        request.send().await.map_err(|error| Error::from_sdk(OPERATION, error))?;
        Ok(())
    }
}

fn index(definition: &IndexDefinition) -> Result<GlobalSecondaryIndex, aws_sdk_dynamodb::error::BuildError> {
    let projection = match definition.projection {
        Projection::All => SdkProjection::builder().projection_type(ProjectionType::All),
        Projection::KeysOnly => SdkProjection::builder().projection_type(ProjectionType::KeysOnly),
        Projection::Include(names) => SdkProjection::builder()
            .projection_type(ProjectionType::Include)
            .set_non_key_attributes(Some(names.iter().map(|name| (*name).to_owned()).collect())),
    };
    GlobalSecondaryIndex::builder()
        .index_name(definition.name)
        .set_key_schema(Some(key_schema(definition.hash, definition.range)?))
        .projection(projection.build())
        .build()
}

fn key_schema(hash: &str, range: &str) -> Result<Vec<KeySchemaElement>, aws_sdk_dynamodb::error::BuildError> {
    Ok(vec![
        KeySchemaElement::builder().attribute_name(hash).key_type(KeyType::Hash).build()?,
        KeySchemaElement::builder().attribute_name(range).key_type(KeyType::Range).build()?,
    ])
}

fn refused(operation: &'static str) -> impl Fn(aws_sdk_dynamodb::error::BuildError) -> Error {
    move |source| Error::Refused { operation, source: source.into() }
}
