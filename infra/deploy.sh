#!/usr/bin/env bash
# Creates or updates the stacks in the account and region of the AWS CLI, in the order in which they need each other.
#   infra/deploy.sh                                          storage, images, jobs, airflow, forget
#   NETWORK=true infra/deploy.sh                             the network too
#   NETWORK=true PRIVATE=true infra/deploy.sh                and jobs outside it are refused
#   PHOTO_BUCKETS=arn:aws:s3:::team-photos infra/deploy.sh   and photos are read from there too (a list with commas)
#   ACCESS_LOG_DAYS=90 FLOW_LOG_DAYS=30 infra/deploy.sh     and requests to the bucket, and traffic, are recorded
#   AIRFLOW_ROLE=arn:aws:iam::1:role/mwaa infra/deploy.sh    and that role, which Airflow has already, takes the pipeline's
#   ENDPOINT=dogs infra/deploy.sh                            the alarms of that endpoint too
set -euo pipefail
cd "$(dirname "$0")"
PROJECT="${PROJECT:-ml-pipeline}"
NETWORK="${NETWORK:-false}"
PRIVATE="${PRIVATE:-false}"
PHOTO_BUCKETS="${PHOTO_BUCKETS:-}"

deploy() { # <template> [Parameter=value ...]
  aws cloudformation deploy --no-fail-on-empty-changeset --capabilities CAPABILITY_NAMED_IAM \
    --stack-name "$PROJECT-$1" --template-file "$1.yaml" --parameter-overrides "Project=$PROJECT" "${@:2}"
}

deploy storage "NotificationEmail=${EMAIL:-}" "AccessLogDays=${ACCESS_LOG_DAYS:-0}"
deploy images
if [ "$NETWORK" = true ]; then deploy network "FlowLogDays=${FLOW_LOG_DAYS:-0}"; fi
deploy jobs "Private=$PRIVATE" "PhotoBuckets=$PHOTO_BUCKETS"
deploy airflow "Private=$PRIVATE" "PhotoBuckets=$PHOTO_BUCKETS" \
  "AirflowService=${AIRFLOW_SERVICE:-ec2.amazonaws.com}" "AirflowRole=${AIRFLOW_ROLE:-}"
deploy forget
if [ -n "${ENDPOINT:-}" ]; then deploy endpoint "EndpointName=$ENDPOINT"; fi

stacks=(storage images jobs airflow forget)
if [ "$NETWORK" = true ]; then stacks+=(network); fi
for stack in "${stacks[@]}"; do
  aws cloudformation describe-stacks --stack-name "$PROJECT-$stack" --output table \
    --query 'Stacks[0].Outputs[].[Description, OutputKey, OutputValue]'
done
