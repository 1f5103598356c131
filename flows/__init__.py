"""Prefect flows of stixflow and their deployments: the only place that imports Prefect."""
