-- run once by the image of PostgreSQL, while its volume is empty
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
CREATE DATABASE champions;
